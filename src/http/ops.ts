/** One answer of a health endpoint: anything that says whether it is well. The body is the operator documents' (facts §4.7). */
export type Report = { readonly ok: boolean };

/** The worker's endpoints, on OUTBOX_METRICS_PORT and OUTBOX_HTTP_PORT. */
export type OpsServer = { readonly metricsUrl: string; readonly healthUrl: string; readonly stop: () => Promise<void> };

export type OpsOptions = {
  readonly host: string;
  readonly metricsPort: number;
  readonly healthPort: number;
  readonly metrics: (accept: string | null) => Promise<{ readonly contentType: string; readonly body: string }>;
  /** Is the loop turning? A dependency that is down does not count. */
  readonly live: () => Report;
  /** Should work be given to it? */
  readonly ready: () => Report;
};

const answer = (report: Report) => Response.json(report, { status: report.ok ? 200 : 503 });
const notFound = () => Response.json({ error: "not_found" }, { status: 404 });

/** Serves metrics and health for a worker. Throws what Bun.serve throws, such as a port in use (code EADDRINUSE), with nothing left open. */
export function serveOps(options: OpsOptions): OpsServer {
  const metrics = Bun.serve({
    hostname: options.host,
    port: options.metricsPort,
    // Set explicitly: with `development: false` Bun silently shares the port with any other listener by default.
    reusePort: false,
    routes: {
      "/metrics": async (request: Request) => {
        const { contentType, body } = await options.metrics(request.headers.get("accept"));
        return new Response(body, { headers: { "content-type": contentType } });
      },
    },
    fetch: notFound,
  });
  const serveHealth = () =>
    Bun.serve({
      hostname: options.host,
      port: options.healthPort,
      reusePort: false,
      routes: {
        "/livez": () => answer(options.live()),
        "/healthz": () => answer(options.live()),
        "/readyz": () => answer(options.ready()),
      },
      fetch: notFound,
    });
  let health: ReturnType<typeof serveHealth>;
  try {
    health = serveHealth();
  } catch (error) {
    void metrics.stop(true);
    throw error;
  }
  return {
    metricsUrl: metrics.url.origin,
    healthUrl: health.url.origin,
    stop: async () => {
      await Promise.all([metrics.stop(true), health.stop(true)]);
    },
  };
}

/** What the two threads say to each other. */
export type ToWorker =
  | { readonly kind: "start"; readonly options: Required<CollectorOptions> }
  | { readonly kind: "stop" };
export type FromWorker =
  | { readonly kind: "listening"; readonly port: number; readonly queryPort: number }
  | { readonly kind: "failed"; readonly message: string; readonly code?: string }
  | { readonly kind: "stopped" };

export type CollectorOptions = {
  /** The folder of the spans; ":memory:" keeps them only while it runs. */
  readonly dataDir: string;
  /** 0 takes a free one. OTLP/HTTP, the query API and the pages. */
  readonly port: number;
  /** A second port that answers the same: Jaeger has its query API on one of its own. Null for none. */
  readonly queryPort?: number | null;
  /** Loopback unless told otherwise: there are no credentials. */
  readonly hostname?: string;
  /** How many spans it keeps; the oldest go. */
  readonly maxSpans?: number;
};

export type Collector = {
  /** For OTEL_EXPORTER_OTLP_ENDPOINT. */
  readonly url: string;
  /** For Jaeger's query API, and for people. */
  readonly queryUrl: string;
  /** Lets running requests end, closes the data and ends the thread. */
  readonly stop: () => Promise<void>;
};

const defaultMaxSpans = 200_000;

/** In a compiled binary the worker is an entry point of its own, and found under its path from src. */
const workerPath = import.meta.url.includes("/$bunfs/") ? "./embedded/collector/worker.ts" : "./worker.ts";

/**
 * Starts the embedded trace store on a thread of its own and resolves when it answers. Rejects with the reason, and `code` where the system gave one: EADDRINUSE
 * for a port in use; another process on the same `dataDir`; a folder that cannot be written.
 */
export async function startCollector(options: CollectorOptions): Promise<Collector> {
  const { queryPort = null, hostname = "127.0.0.1", maxSpans = defaultMaxSpans } = options;
  const worker = new Worker(new URL(workerPath, import.meta.url).href);
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has no origin to name
  const say = (message: ToWorker) => worker.postMessage(message);
  try {
    const listening = replyOf(worker, "listening");
    say({ kind: "start", options: { ...options, queryPort, hostname, maxSpans } });
    const ports = await listening;
    const urlOf = (port: number) => `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
    const stop = async () => {
      const stopped = replyOf(worker, "stopped");
      say({ kind: "stop" });
      await stopped;
      worker.terminate();
    };
    let stopping: Promise<void> | undefined;
    return {
      url: urlOf(ports.port),
      queryUrl: urlOf(ports.queryPort),
      stop: () => {
        stopping ??= stop();
        return stopping;
      },
    };
  } catch (cause) {
    worker.terminate();
    throw cause;
  }
}

/** The next message of that kind. Rejects when the worker reports a failure or breaks. */
function replyOf<Kind extends FromWorker["kind"]>(
  worker: Worker,
  kind: Kind,
): Promise<Extract<FromWorker, { kind: Kind }>> {
  return new Promise((resolve, reject) => {
    worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => {
      if (data.kind === kind) resolve(data as Extract<FromWorker, { kind: Kind }>);
      else if (data.kind === "failed") {
        const failure = new Error(`the embedded trace store did not start: ${data.message}`);
        reject(data.code === undefined ? failure : Object.assign(failure, { code: data.code }));
      }
    });
    worker.addEventListener("error", (event) => reject(new Error(`the embedded trace store broke: ${event.message}`)));
  });
}

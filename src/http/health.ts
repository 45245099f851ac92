import type { Elysia } from "elysia";
import packageJson from "../../package.json" with { type: "json" };
import type { Db } from "../db/client.ts";
import { ping } from "../db/ping.ts";
import { WordloomError } from "../errors.ts";

/** Whether the process still takes requests. Set `draining` as soon as it is asked to stop. */
export type Readiness = { draining: boolean };

const pingMs = 1000;
const paths = ["/api/v1/health", "/livez", "/readyz", "/metrics"];

/** Whether a draining process still answers this path. */
export const isHealthPath = (path: string): boolean => paths.includes(path);

export function healthRoutes(
  app: Elysia,
  db: Db,
  readiness: Readiness,
  metrics: (request: Request) => Response | Promise<Response>,
): void {
  app
    .get("/api/v1/health", () => ({ status: "healthy", version: packageJson.version }), {
      detail: { summary: "Returns the version of the running build." },
    })
    .get("/livez", () => ({ status: "alive" }), { detail: { summary: "Liveness: answers while the process runs." } })
    .get(
      "/readyz",
      async () => {
        if (readiness.draining) throw new WordloomError("DRAINING");
        await ping(db, pingMs).catch((error: unknown) => {
          throw new WordloomError("DATABASE_UNAVAILABLE", undefined, { cause: error });
        });
        return { status: "ready" };
      },
      {
        detail: { summary: "Readiness: the database answers, and the process is not stopping." },
      },
    )
    .get("/metrics", ({ request }) => metrics(request), { detail: { summary: "Metrics in Prometheus format." } });
}

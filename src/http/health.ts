import { sql } from "drizzle-orm";
import type { Elysia } from "elysia";
import packageJson from "../../package.json" with { type: "json" };
import type { Db } from "../db/client.ts";
import { WordloomError } from "../errors.ts";

/** Whether the process still takes requests. Set `draining` as soon as it is asked to stop. */
export type Readiness = { draining: boolean };

const pingMs = 1000;
const paths = ["/api/v1/health", "/livez", "/readyz", "/metrics"];

/** Whether a draining process still answers this path. */
export const isHealthPath = (path: string): boolean => paths.includes(path);

/** Throws DATABASE_UNAVAILABLE when the database does not answer within a second, a wait for a free connection included. */
async function ping(db: Db): Promise<void> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no answer within ${pingMs} ms`)), pingMs);
  try {
    await Promise.race([db.execute(sql`select 1`), late.promise]);
  } catch (error) {
    throw new WordloomError("DATABASE_UNAVAILABLE", undefined, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

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
        await ping(db);
        return { status: "ready" };
      },
      {
        detail: { summary: "Readiness: the database answers, and the process is not stopping." },
      },
    )
    .get("/metrics", ({ request }) => metrics(request), { detail: { summary: "Metrics in Prometheus format." } });
}

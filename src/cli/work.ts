import { buildCommand } from "@stricli/core";
import { type Context, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, optional } from "./flags.ts";

type Flags = EnvFileFlag & { workerId?: string; projection?: "search" | "chronicle" };

/** As OUTBOX_WORKER_ID. Throws for anything else. */
function parseWorkerId(input: string): string {
  if (!/^[\x21-\x7e]{1,100}$/.test(input)) throw new Error("expected 1 to 100 printable ASCII characters, no spaces");
  return input;
}

export const work = buildCommand({
  docs: {
    brief: "Project committed writes into the search index and the chronicle",
    fullDescription: [
      "Examples:",
      "  wordloom work                            both projections in one process",
      "  wordloom work --projection search --worker-id w1",
      "",
      "The database must be migrated (`wordloom migrate`). Run as many as you like on one database: they share the work through leases.",
      "Metrics are on OUTBOX_METRICS_PORT; /livez, /readyz and /healthz on OUTBOX_HTTP_PORT. A second worker on the same machine needs its own ports.",
      "SIGTERM: no new work; work in hand is finished or given back within OUTBOX_SHUTDOWN_GRACE_SECONDS, exit 0. A second signal exits at once.",
    ].join("\n"),
  },
  parameters: {
    flags: {
      workerId: optional(parseWorkerId, "name", "Instead of OUTBOX_WORKER_ID"),
      projection: {
        kind: "enum",
        values: ["search", "chronicle"],
        optional: true,
        brief: "Run only this projection",
      },
      envFile: envFileFlag,
    },
  },
  async func(this: Context, flags: Flags) {
    const { work: run } = await import("../app/work.ts");
    await run(readEnv(this, flags), flags, this.signal);
  },
});

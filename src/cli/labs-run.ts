import { buildCommand } from "@stricli/core";
import { type DrillName, menu } from "../labs/menu.ts";
import type { DrillOptions } from "../labs/world.ts";
import { type Context, printJson, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, jsonFlag, optional, port, seconds, wholeNumber, withDefault } from "./flags.ts";
import { jaeger, outdir, parseRunId, scenario, timeName } from "./labs-flags.ts";

/** A status that fails an event for good. Throws for anything else. */
function parsePartialStatus(input: string): number {
  const status = wholeNumber(400, 499)(input);
  if ([401, 404, 408, 409, 429].includes(status))
    throw new Error("expected a status that fails an event for good, such as 400");
  return status;
}

type RunFlags = EnvFileFlag &
  Omit<DrillOptions, "metricsPorts" | "triggerCount"> & {
    outdir: string;
    runId?: string;
    jaegerUrl?: string;
    triggerCount?: number;
    metricsPort?: number;
    "metrics-port-1"?: number;
    "metrics-port-2"?: number;
    json?: boolean;
  };

export const run = buildCommand({
  docs: {
    brief: "Break something on purpose, mend it, and keep the evidence",
    fullDescription: [
      "Examples:",
      "  wordloom labs run all                    every drill, about half a minute",
      "  wordloom labs run es_down_connect --op delete",
      "",
      "Drills:",
      ...menu.map(({ name, letter, brief }) => `  ${name.padEnd(20)}${(letter ?? "").padEnd(3)}${brief}`),
      "",
      "Real processes of this binary are broken from outside, on the labs' own Postgres, search engine and trace store below WORDLOOM_DATA_DIR, or on the servers",
      "named by DATABASE_URL, ELASTIC_URL and OTEL_EXPORTER_OTLP_ENDPOINT; no other worker may run there. WORDLOOM_ENV is test unless it is set to dev.",
    ].join("\n"),
  },
  parameters: {
    positional: scenario,
    flags: {
      envFile: envFileFlag,
      outdir,
      runId: optional(parseRunId, "name", "Name of the run; default: the current time"),
      jaegerUrl: jaeger,
      duration: withDefault(wholeNumber(1, 3600), "30", "seconds", "Maximum time for each wait"),
      metricsPort: port("Metrics port of the first worker; default: any free port"),
      "metrics-port-1": port("Alias of --metrics-port"),
      "metrics-port-2": port("Metrics port of the second worker"),
      scrapeDelay: withDefault(seconds(60), "0", "seconds", "Delay between a worker's start and its first scrape"),
      op: {
        kind: "enum",
        values: ["upsert", "delete"],
        default: "delete",
        brief: "es_down_connect: op of the waiting events",
      },
      triggerCount: optional(wholeNumber(1, 1000), "n", "How many tags are written"),
      everyN: withDefault(wholeNumber(1, 1000), "2", "n", "es_429_inject: refuse every n-th item"),
      bulkSize: withDefault(wholeNumber(2, 1000), "10", "n", "es_bulk_partial: events per request"),
      partialStatus: withDefault(parsePartialStatus, "400", "status", "es_bulk_partial: status of the refused item"),
      breakClaimSleep: withDefault(
        seconds(30),
        "1",
        "seconds",
        "db_claim_contention: wait between selecting events and claiming them",
      ),
      leaseSeconds: withDefault(wholeNumber(1, 60), "3", "seconds", "stuck_reclaim: lease duration"),
      deleteCount: withDefault(
        wholeNumber(1, 100),
        "2",
        "n",
        "duplicate_delivery: how many times the delete is repeated",
      ),
      json: jsonFlag,
    },
  },
  async func(this: Context, flags: RunFlags, chosen: readonly DrillName[]) {
    const { runLabs } = await import("../app/labs.ts");
    const { metricsPort, "metrics-port-1": first, "metrics-port-2": second } = flags;
    const { duration, scrapeDelay, op, triggerCount, everyN, bulkSize, partialStatus } = flags;
    const { breakClaimSleep, leaseSeconds, deleteCount } = flags;
    const runs: { scenario: string; run_id: string; run_dir: string }[] = [];
    const id = flags.runId ?? timeName(new Date());
    // Field by field: what is in the options is in the evidence.
    const options: DrillOptions = {
      duration,
      scrapeDelay,
      op,
      triggerCount,
      everyN,
      bulkSize,
      partialStatus,
      breakClaimSleep,
      leaseSeconds,
      deleteCount,
      metricsPorts: [metricsPort ?? first, second],
    };
    try {
      await runLabs(
        readEnv(this, flags),
        chosen,
        {
          outdir: flags.outdir,
          runId: id,
          envFile: flags.envFile,
          traces: flags.jaegerUrl,
          signal: this.signal,
          options,
        },
        (name) => this.process.stderr.write(`${name}: ${menu.find((drill) => drill.name === name)?.brief}\n`),
        (name, dir) => {
          runs.push({ scenario: name, run_id: id, run_dir: dir });
          if (!flags.json) this.process.stdout.write(`${dir}\n`);
        },
      );
    } finally {
      if (flags.json) printJson(this, runs);
    }
    this.process.stderr.write("run `wordloom labs verify` to check the evidence\n");
  },
});

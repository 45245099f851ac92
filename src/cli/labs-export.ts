import { buildCommand } from "@stricli/core";
import { type DrillName, defaultExports } from "../labs/menu.ts";
import { type Context, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, optional, required, wholeNumber, withDefault } from "./flags.ts";
import { jaeger, outdir, parseRunId, runId, scenario, timeName } from "./labs-flags.ts";
import { counted } from "./progress.ts";

type ExportFlags = EnvFileFlag & {
  outdir: string;
  runId?: string;
  jaegerUrl?: string;
  service?: string;
  lookback: number;
  limit: number;
};

const unitMs: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds of `30m`, `1h` or `2d`. Throws for anything else. */
function parseLookback(input: string): number {
  const [, count, unit = ""] = /^(\d{1,6})([mhd])$/.exec(input) ?? [];
  const ms = unitMs[unit];
  if (ms === undefined) throw new Error("expected a duration, such as 30m, 1h or 2d");
  return Number(count) * ms;
}

export const exportRun = buildCommand({
  docs: {
    brief: "Export the traces of a drill again",
    fullDescription: [
      "Example:",
      "  wordloom labs export es_down_connect --lookback 1h --limit 20",
      "",
      "Every run exports its own traces. This exports them again, later or with another limit, from the labs' trace store or a Jaeger of your own.",
    ].join("\n"),
  },
  parameters: {
    positional: scenario,
    flags: {
      envFile: envFileFlag,
      outdir,
      runId,
      jaegerUrl: jaeger,
      service: optional(String, "name", "Service whose operations are listed; default: the drill's own"),
      lookback: withDefault(parseLookback, "1h", "time", "How far back"),
      limit: withDefault(wholeNumber(1, 1000), "20", "n", "Maximum number of traces per query"),
    },
  },
  async func(this: Context, flags: ExportFlags, chosen: readonly DrillName[]) {
    const { exportLabs } = await import("../app/labs.ts");
    const { outdir: folder, runId: id, jaegerUrl, service, lookback: lookbackMs, limit } = flags;
    const run = { outdir: folder, runId: id, traces: jaegerUrl, service, lookbackMs, limit };
    for (const { dir, traces } of await exportLabs(readEnv(this, flags), chosen, run))
      this.process.stdout.write(`${counted(traces, "trace")} in ${dir}\n`);
  },
});

type JaegerFlags = {
  service: string;
  operation?: string;
  outboxEventId?: string;
  claimBatchId?: string;
  lookback: number;
  limit: number;
  jaegerUrl?: string;
  outdir: string;
  runId?: string;
};

export const exportJaeger = buildCommand({
  docs: {
    brief: "Export traces that belong to no drill",
    fullDescription: [
      "Examples:",
      "  wordloom labs export-jaeger --service wordloom-search-outbox-worker --lookback 1h --limit 20",
      "  wordloom labs export-jaeger --service wordloom-search-outbox-worker --outbox-event-id 4711",
      "",
      "Saves what Jaeger, or the trace store of `wordloom up` and `wordloom collector`, returns: services, operations and the matching traces.",
    ].join("\n"),
  },
  parameters: {
    flags: {
      service: required(String, "name", "Service whose traces are exported"),
      operation: optional(String, "name", "Only traces with a span of this operation"),
      outboxEventId: optional(String, "id", "Only the traces of this event"),
      claimBatchId: optional(String, "id", "Only the traces of this batch"),
      lookback: withDefault(parseLookback, "24h", "time", "How far back"),
      limit: withDefault(wholeNumber(1, 1000), "20", "n", "Maximum number of traces"),
      jaegerUrl: jaeger,
      outdir: withDefault(String, defaultExports, "folder", "Where the export is saved"),
      runId: optional(parseRunId, "name", "Folder name; default: the current time"),
    },
  },
  async func(this: Context, flags: JaegerFlags) {
    const { exportJaeger: run } = await import("../app/labs.ts");
    const { service, operation, outboxEventId, claimBatchId, jaegerUrl: url, lookback: lookbackMs, limit } = flags;
    const tags = {
      ...(outboxEventId === undefined ? {} : { "wordloom.outbox_event_id": outboxEventId }),
      ...(claimBatchId === undefined ? {} : { "wordloom.claim_batch_id": claimBatchId }),
    };
    const to = { outdir: flags.outdir, runId: flags.runId ?? timeName(new Date()) };
    const { dir, traces } = await run({ service, operation, tags }, { url, lookbackMs, limit }, to);
    this.process.stdout.write(`${counted(traces, "trace")} in ${dir}\n`);
  },
});

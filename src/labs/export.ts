import { projections } from "../events.ts";
import type { EventRow } from "../outbox/rows.ts";
import { services } from "../telemetry/keys.ts";
import { tellsOf } from "./drill.ts";
import type { EvidenceFolder } from "./evidence.ts";
import {
  type Answer,
  type ExportedSpan,
  findTraces,
  readOperations,
  readServices,
  spansIn,
  type TraceQuery,
} from "./jaeger.ts";

export type ExportOptions = {
  /** Jaeger's query API. */
  readonly url: string;
  /** Whose operations are listed beside. */
  readonly service: string;
  /** How far back traces are looked for. */
  readonly lookbackMs: number;
  /** Traces of one query at most. */
  readonly limit: number;
  /** How long spans that are on their way are waited for. */
  readonly patienceMs: number;
};

const everyMs = 200;
const batchId = "wordloom.claim_batch_id";
const tellerOf = (row: EventRow): string =>
  row.projection === projections.chronicle ? services.chronicle : services.search;

/** The traces that tell of these events, and of the batches that they were in, each trace once: a store may hold those of other databases, which count the same ids. */
async function tracesOf(rows: readonly EventRow[], { url, lookbackMs, limit }: ExportOptions): Promise<Answer> {
  const found = new Map<string, unknown>();
  const search = async (query: TraceQuery, tells: (span: ExportedSpan) => boolean): Promise<ExportedSpan[]> => {
    const answer = await findTraces(url, query, lookbackMs, limit);
    return answer.data.flatMap((trace) => {
      const spans = spansIn({ data: [trace] });
      const told = spans.filter(tells);
      for (const { traceId } of told) found.set(traceId, trace);
      return told;
    });
  };
  for (const row of rows) {
    const service = tellerOf(row);
    const tags = { "wordloom.outbox_event_id": row.id, "wordloom.entity_id": row.entity_id };
    const events = await search({ service, operation: "outbox.process", tags }, (span) => tellsOf(span, row));
    // Not the row's batch alone: an event that was tried again was in several.
    const batches = new Set(events.map((span) => String(span.tags[batchId])));
    for (const id of batches)
      await search(
        { service, operation: "projection.process_batch", tags: { [batchId]: id } },
        (span) => span.tags[batchId] === id,
      );
  }
  return { data: [...found.values()] };
}

/** Those of the events whose span is not there. */
function missing(rows: readonly EventRow[], traces: Answer): EventRow[] {
  const spans = spansIn(traces);
  return rows.filter((row) => !spans.some((span) => tellsOf(span, row)));
}

/** Keeps the traces of these events, and which services and operations there are, under `_exports`. Returns how many traces; throws when the trace store does not answer. */
export async function exportTraces(
  evidence: EvidenceFolder,
  rows: readonly EventRow[],
  options: ExportOptions,
): Promise<number> {
  const deadline = performance.now() + options.patienceMs;
  let traces = await tracesOf(rows, options);
  while (missing(rows, traces).length > 0 && performance.now() < deadline) {
    await Bun.sleep(everyMs);
    traces = await tracesOf(rows, options);
  }
  await keep(evidence, options, traces);
  return traces.data.length;
}

async function keep(
  evidence: EvidenceFolder,
  { url, service }: Pick<ExportOptions, "url" | "service">,
  traces: Answer,
) {
  // All or nothing: a file without the others would spoil the seal of a run.
  const [allServices, operations] = await Promise.all([readServices(url), readOperations(url, service)]);
  const at = new Date().toISOString().replaceAll(/[-:]|\.\d+Z/g, "");
  evidence.write(`_exports/jaeger-services-${at}.json`, allServices);
  evidence.write(`_exports/jaeger-operations-${at}.json`, operations);
  evidence.write(`_exports/jaeger-traces-tags-${at}.json`, traces);
}

/** Keeps what one question finds, of whatever traces there are. Returns how many; throws when the trace store does not answer. */
export async function exportFound(
  evidence: EvidenceFolder,
  query: TraceQuery,
  { url, lookbackMs, limit }: Pick<ExportOptions, "url" | "lookbackMs" | "limit">,
): Promise<number> {
  const traces = await findTraces(url, query, lookbackMs, limit);
  await keep(evidence, { url, service: query.service }, traces);
  return traces.data.length;
}

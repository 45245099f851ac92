import type { EventRow } from "../outbox/rows.ts";
import { services } from "../telemetry/keys.ts";
import { filesIn, listOf, readList, readRecord, readText } from "./evidence.ts";
import { type ExportedSpan, spansIn } from "./jaeger.ts";
import type { DrillName } from "./menu.ts";
import { type Page, parsePage, sumOf } from "./metrics.ts";
import type { Stage } from "./stage.ts";

/** What one look at the evidence found. */
export type Check = {
  readonly name: string;
  readonly ok: boolean;
  readonly expected: string;
  readonly observed: unknown;
};

/** One of the classic failures: how it is caused, and what its evidence must show. */
export type Drill = {
  readonly name: DrillName;
  /** The service whose spans show it. */
  readonly service: "search" | "chronicle";
  /** What is broken, and how: goes into `_recipe.json`. */
  readonly inject: (stage: Pick<Stage, "options">) => Readonly<Record<string, unknown>>;
  /** Its traces are in a store of its own, and exported while that runs. */
  readonly exportsItself?: true;
  /** Breaks it, waits until it shows, and mends it: everything is done when this returns. */
  readonly run: (stage: Stage) => Promise<void>;
  /** Reads the evidence, and nothing else. */
  readonly checks: (evidence: Evidence) => readonly Check[];
};

/** An entity of a drill: what Postgres holds, and what Elasticsearch does. */
export type DocumentPair = {
  readonly entity_id: string;
  /** Null: a deleted entity, or none. */
  readonly source_version: string | null;
  /** Null: there is no document. */
  readonly target_version: string | null;
};

type Line = Readonly<Record<string, unknown>>;

/** The evidence of a run, as far as it exists: missing parts read as empty, and the checks fail on them. */
export type Evidence = {
  readonly dir: string;
  readonly metrics: (name: string) => Page;
  /** How much a counter has risen from one scrape to another, over all series with these labels. */
  readonly delta: (name: string, labels?: Readonly<Record<string, string>>, suffix?: string) => number;
  /** How many events the drill has appended, by projection. */
  readonly appended: Readonly<Record<string, unknown>>;
  readonly rows: readonly EventRow[];
  readonly documents: readonly DocumentPair[];
  /** Log lines of all processes. */
  readonly lines: readonly Line[];
  readonly spans: readonly ExportedSpan[];
};

function parsed(line: string): Line[] {
  if (!line.startsWith("{")) return [];
  try {
    return [JSON.parse(line) as Line];
  } catch {
    return [];
  }
}

/** Opens a run's folder for the checks. */
export function openEvidence(dir: string): Evidence {
  const files = filesIn(dir);
  const metrics = (name: string) => parsePage(readText(dir, `_metrics/metrics-${name}.txt`) ?? "");
  const logs = files.filter((name) => name.startsWith("_logs/"));
  const exports = files.filter((name) => name.startsWith("_exports/jaeger-traces-"));
  return {
    dir,
    metrics,
    delta: (name, labels, suffix = "") =>
      sumOf(metrics(`after${suffix}`), name, labels) - sumOf(metrics(`before${suffix}`), name, labels),
    appended: readRecord(dir, "_appended.json"),
    rows: readList(dir, "_rows.json") as readonly EventRow[],
    documents: readList(dir, "_documents.json") as readonly DocumentPair[],
    lines: logs.flatMap((name) => (readText(dir, name) ?? "").split("\n").flatMap(parsed)),
    spans: exports.flatMap((name) => spansIn({ data: listOf(readRecord(dir, name)["data"]) })),
  };
}

export const atLeast = (name: string, observed: number, least: number): Check => ({
  name,
  ok: observed >= least,
  expected: `at least ${least}`,
  observed,
});

export const none = (name: string, observed: number): Check => ({ name, ok: observed === 0, expected: "0", observed });

export const holds = (name: string, expected: string, ok: boolean, observed: unknown): Check => ({
  name,
  ok,
  expected,
  observed,
});

const count = (rows: readonly EventRow[], of: (row: EventRow) => string) =>
  Object.fromEntries(
    Map.groupBy(rows, of)
      .entries()
      .map(([key, group]) => [key, group.length]),
  );

/** Nothing is lost: every appended event has one row, and it is done. */
export function everythingDone({ rows, appended }: Evidence): Check {
  const found = count(rows, ({ projection }) => projection);
  const queues = new Set([...Object.keys(appended), ...Object.keys(found)]);
  const complete = [...queues].every((projection) => found[projection] === appended[projection]);
  const once = new Set(rows.map(({ projection, id }) => `${projection} ${id}`)).size === rows.length;
  return holds(
    "every event that was appended is done",
    JSON.stringify(appended),
    rows.length > 0 && complete && once && rows.every(({ status }) => status === "done"),
    count(rows, ({ projection, status }) => `${projection} ${status}`),
  );
}

/** Nothing stale or deleted is served: Elasticsearch has the version that Postgres has, and nothing of what is deleted. */
export const targetIsSource = ({ documents }: Evidence): Check =>
  holds(
    "Elasticsearch holds what Postgres holds",
    "the same versions",
    documents.length > 0 && documents.every((pair) => pair.source_version === pair.target_version),
    documents.filter((pair) => pair.source_version !== pair.target_version),
  );

/** Whether a span is of this event. Each queue of each database counts its own ids; what an event is about is unique. */
export const tellsOf = (
  { operation, tags }: ExportedSpan,
  row: Pick<EventRow, "id" | "projection" | "entity_id">,
): boolean =>
  operation === "outbox.process" &&
  tags["wordloom.outbox_event_id"] === row.id &&
  tags["wordloom.projection"] === row.projection &&
  tags["wordloom.entity_id"] === row.entity_id;

const traceIdOf = (traceparent: string | null) => traceparent?.split("-")[1];

/**
 * What happened can be followed from one signal to the next: for every event that a request caused, a span `outbox.process` that names the event is in the trace of that
 * request, and a log line that names the event has the same trace id.
 */
export function sameTrace({ rows, spans, lines }: Evidence, projection: string): Check {
  const traced = rows.filter((row) => row.traceparent !== null && row.projection === projection);
  const torn = traced.filter((row) => {
    const traceId = traceIdOf(row.traceparent);
    const inSpan = spans.some((span) => span.traceId === traceId && tellsOf(span, row));
    const inLog = lines.some(
      (line) =>
        line["outbox_event_id"] === row.id && line["entity_id"] === row.entity_id && line["trace_id"] === traceId,
    );
    return !inSpan || !inLog;
  });
  return holds(
    "row, span and log line of an event share its trace",
    "every event of a request",
    traced.length > 0 && torn.length === 0,
    { events: traced.length, torn: torn.map(({ id }) => id) },
  );
}

/** Whether a log line of this kind was written; `fields` are compared as they are. */
export function told(
  evidence: Evidence,
  name: string,
  event: string,
  fields: Readonly<Record<string, unknown>>,
): Check {
  const found = evidence.lines.filter(
    (line) => line["event"] === event && Object.entries(fields).every(([key, value]) => line[key] === value),
  );
  return atLeast(`log lines ${name}`, found.length, 1);
}

/** Whether a span of this kind was exported. */
export function spanned(
  { spans }: Evidence,
  name: string,
  operation: string,
  tags: Readonly<Record<string, unknown>>,
): Check {
  const found = spans.filter(
    (span) => span.operation === operation && Object.entries(tags).every(([key, value]) => span.tags[key] === value),
  );
  return atLeast(`spans ${name}`, found.length, 1);
}

/** The service that a drill's spans come from. */
export const serviceOf = (drill: Pick<Drill, "service">): string => services[drill.service];

import type { SQLQueryBindings } from "bun:sqlite";
import type { Store } from "./store.ts";
import { operationToken, serviceToken, tagToken } from "./tokens.ts";
import { listServices } from "./traces.ts";

/** Times in microseconds, of span starts; both ends count. */
export type TraceQuery = {
  /** Undefined: any. */
  readonly service: string | undefined;
  readonly operation: string | undefined;
  readonly tags: ReadonlyMap<string, string>;
  readonly startUs: number;
  readonly endUs: number;
  readonly minDurationUs: number | undefined;
  readonly maxDurationUs: number | undefined;
  readonly limit: number;
};

/** An expression of the full-text index. */
type Condition = string;

/** Spans looked at together: among these the latest start comes first, between them the latest arrival. */
const chunkSize = 20_000;

/**
 * The ids of the traces that match, latest first. As in Jaeger each condition may be met by another span of the trace, but by one of the service and inside the
 * window; the duration by any of its spans. Goes through the spans that meet the rarest condition until it has what is wanted.
 */
export function findTraces(store: Store, query: TraceQuery): string[] {
  const [rarest, ...others] = conditionsOf(store, query);
  if (rarest === undefined) return [];
  const read = store.db.query<{ seq: number; trace_id: string; start_us: number }, SQLQueryBindings[]>(
    `select s.seq, s.trace_id, s.start_us from tokens t join spans s on s.seq = t.rowid
     where tokens match ? and t.rowid < ? order by t.rowid desc limit ${chunkSize}`,
  );
  const found = new Set<string>();
  const refused = new Set<string>();
  let before = Number.MAX_SAFE_INTEGER;
  for (;;) {
    const spans = read.all(rarest, before);
    for (const { trace_id: traceId, start_us: startUs } of spans.toSorted((a, b) => b.start_us - a.start_us)) {
      if (startUs < query.startUs || startUs > query.endUs || found.has(traceId) || refused.has(traceId)) continue;
      const fits = others.every((other) => meets(store, query, traceId, other)) && lasts(store, query, traceId);
      (fits ? found : refused).add(traceId);
      if (found.size === query.limit) return [...found];
    }
    if (spans.length < chunkSize) return [...found];
    before = spans.at(-1)?.seq ?? 0;
  }
}

/** The rarest first. None when there is no service yet. */
function conditionsOf(store: Store, { service, operation, tags }: TraceQuery): Condition[] {
  const services = service === undefined ? listServices(store) : [service];
  if (services.length === 0) return [];
  const anyOf = (tokenOf: (service: string) => string) => services.map((name) => `"${tokenOf(name)}"`).join(" OR ");
  const conditions = [...tags].map(([key, value]) => anyOf((name) => tagToken(name, key, value)));
  if (operation !== undefined) conditions.push(anyOf((name) => operationToken(name, operation)));
  if (conditions.length === 0) return [anyOf(serviceToken)];
  if (conditions.length === 1) return conditions;
  return conditions
    .map((condition) => ({ condition, spans: countSpans(store, condition) }))
    .toSorted((a, b) => a.spans - b.spans)
    .map(({ condition }) => condition);
}

/** Counted no further: what is more is common. */
const common = 10_000;

function countSpans({ db }: Store, condition: Condition): number {
  const row = db
    .query<{ spans: number }, [string]>(
      `select count(*) as spans from (select 1 from tokens where tokens match ? limit ${common})`,
    )
    .get(condition);
  return row?.spans ?? 0;
}

function meets({ db }: Store, { startUs, endUs }: TraceQuery, traceId: string, condition: Condition): boolean {
  const span = db
    .query(
      `select 1 from spans s where s.trace_id = ? and s.start_us between ? and ?
       and exists (select 1 from tokens where tokens match ? and rowid = s.seq) limit 1`,
    )
    .get(traceId, startUs, endUs, condition);
  return span !== null;
}

function lasts({ db }: Store, { minDurationUs, maxDurationUs, endUs }: TraceQuery, traceId: string): boolean {
  if (minDurationUs === undefined && maxDurationUs === undefined) return true;
  const span = db
    .query("select 1 from spans where trace_id = ? and duration_us between ? and ? and start_us <= ? limit 1")
    .get(traceId, minDurationUs ?? 0, maxDurationUs ?? Number.MAX_SAFE_INTEGER, endUs);
  return span !== null;
}

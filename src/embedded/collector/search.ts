import type { SQLQueryBindings } from "bun:sqlite";
import type { Store } from "./store.ts";
import { tagLine } from "./tags.ts";

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

/**
 * The ids of the traces that match, latest first. As in Jaeger each condition may be met by another span of the trace, but by one of the service and inside the
 * window; the duration by any of its spans. One pass over the service's spans, newest first, which ends with the last trace that is wanted.
 */
export function findTraces({ db }: Store, query: TraceQuery): string[] {
  const conditions: string[] = [];
  const wanted: SQLQueryBindings[] = [];
  for (const [key, value] of query.tags) {
    const line = `\n${tagLine(key, value)}\n`;
    conditions.push("instr(s.tags, ?) > 0 or instr(r.tags, ?) > 0");
    wanted.push(line, line);
  }
  if (query.operation !== undefined) {
    conditions.push("s.operation = ?");
    wanted.push(query.operation);
  }
  if (conditions.length === 0) conditions.push("true");
  const met = conditions.map((condition, at) => `(${condition}) as met_${at}`).join(", ");
  const anyMet = conditions.map((_, at) => `met_${at}`).join(" or ");
  const [where, order, scope] =
    query.service === undefined ? ["", "s.seq desc", []] : ["s.service = ? and", "s.start_us desc", [query.service]];
  const rows = db
    .query<Record<string, string | number>, SQLQueryBindings[]>(
      `select s.trace_id, ${met} from spans s join sources r on r.id = s.source
       where ${where} s.start_us between ? and ? and (${anyMet}) order by ${order}`,
    )
    .iterate(...wanted, ...scope, query.startUs, query.endUs);
  const open = new Map<string, Set<number>>();
  const found = new Set<string>();
  for (const row of rows) {
    const traceId = String(row["trace_id"]);
    if (found.has(traceId)) continue;
    const missing = open.get(traceId) ?? new Set(conditions.keys());
    open.set(traceId, missing);
    for (const at of conditions.keys()) if (row[`met_${at}`] === 1) missing.delete(at);
    if (missing.size > 0 || !lastsAsAsked(db, query, traceId)) continue;
    found.add(traceId);
    if (found.size === query.limit) break;
  }
  return [...found];
}

function lastsAsAsked(db: Store["db"], { minDurationUs, maxDurationUs, endUs }: TraceQuery, traceId: string): boolean {
  if (minDurationUs === undefined && maxDurationUs === undefined) return true;
  const span = db
    .query("select 1 from spans where trace_id = ? and duration_us between ? and ? and start_us <= ? limit 1")
    .get(traceId, minDurationUs ?? 0, maxDurationUs ?? Number.MAX_SAFE_INTEGER, endUs);
  return span !== null;
}

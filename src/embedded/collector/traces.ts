import type { Database, SQLQueryBindings } from "bun:sqlite";
import type { Resource, Scope, Span } from "./otlp.ts";
import { type Store, unpack } from "./store.ts";

/** Reading what the store holds, trace by trace. */

/** Who said it: spans of one resource and scope share a source. */
export type Source = { readonly service: string; readonly resource: Resource; readonly scope: Scope };
export type StoredSpan = { readonly span: Span; readonly source: Source };

/** The spans of a trace by their start; none when it is unknown. */
export function readTrace({ db }: Store, traceId: string): StoredSpan[] {
  const rows = db
    .query<{ data: Uint8Array; source: number; operation: number }, [string]>(
      "select data, source, operation from spans where trace_id = ? order by start_us, seq",
    )
    .all(traceId);
  const sources = remember((id: number) => readSource(db, id));
  const samples = remember((id: number) => readSample(db, id));
  return rows.map(({ data, source, operation }) => ({
    span: unpack(data, samples(operation)),
    source: sources(source),
  }));
}

function remember<T>(read: (id: number) => T): (id: number) => T {
  const known = new Map<number, T>();
  return (id) => {
    const value = known.get(id) ?? read(id);
    known.set(id, value);
    return value;
  };
}

function readSource(db: Database, id: number): Source {
  const row = db
    .query<{ service: string; resource: string; scope: string }, [number]>(
      "select service, resource, scope from sources where id = ?",
    )
    .get(id);
  if (row === null) throw new Error(`source ${id} is gone while spans name it`);
  return { service: row.service, resource: JSON.parse(row.resource), scope: JSON.parse(row.scope) };
}

function readSample(db: Database, id: number): Uint8Array {
  const row = db.query<{ sample: string }, [number]>("select sample from operations where id = ?").get(id);
  if (row === null) throw new Error(`operation ${id} is gone while spans name it`);
  return Buffer.from(row.sample);
}

/** What a span is called; undefined when it is not held. */
export function nameSpan(
  { db }: Store,
  traceId: string,
  spanId: string,
): { readonly service: string; readonly operation: string } | undefined {
  const row = db
    .query<{ service: string; operation: string }, [string, string]>(
      `select o.service, o.name as operation from spans s join operations o on o.id = s.operation
       where s.trace_id = ? and s.span_id = ?`,
    )
    .get(traceId, spanId);
  return row ?? undefined;
}

/** Names of all services of which spans are held, sorted. */
export function listServices({ db }: Store): string[] {
  const rows = db.query<{ service: string }, []>("select distinct service from operations").all();
  return rows.map(({ service }) => service).toSorted();
}

/** Names of the operations of a service, sorted. */
export function listOperations({ db }: Store, service: string): string[] {
  const rows = db.query<{ name: string }, [string]>("select name from operations where service = ?").all(service);
  return rows.map(({ name }) => name).toSorted();
}

export type TraceSummary = {
  readonly traceId: string;
  readonly startUs: number;
  readonly durationUs: number;
  readonly errors: number;
  /** Spans by service, in the order in which the services come in. */
  readonly services: ReadonlyMap<string, number>;
  /** The first span without a parent here. */
  readonly root: { readonly service: string; readonly operation: string };
};

export function summarizeTraces({ db }: Store, traceIds: readonly string[]): TraceSummary[] {
  const read = db.query<SummaryRow, SQLQueryBindings[]>(
    `select s.span_id, s.parent_id, s.start_us, s.duration_us, s.error, o.service, o.name as operation
     from spans s join operations o on o.id = s.operation where s.trace_id = ? order by s.start_us, s.seq`,
  );
  return traceIds.flatMap((traceId) => {
    const rows = read.all(traceId);
    const ids = new Set(rows.map((row) => row.span_id));
    const root = rows.find((row) => !ids.has(row.parent_id)) ?? rows[0];
    if (root === undefined) return [];
    const services = new Map<string, number>();
    for (const { service } of rows) services.set(service, (services.get(service) ?? 0) + 1);
    const startUs = rows[0]?.start_us ?? 0;
    const endUs = rows.reduce((end, row) => Math.max(end, row.start_us + row.duration_us), startUs);
    const errors = rows.reduce((count, row) => count + row.error, 0);
    return [{ traceId, startUs, durationUs: endUs - startUs, errors, services, root }];
  });
}

type SummaryRow = {
  span_id: string;
  parent_id: string;
  start_us: number;
  duration_us: number;
  service: string;
  operation: string;
  error: number;
};

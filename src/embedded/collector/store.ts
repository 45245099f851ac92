import { Database, type SQLQueryBindings } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Resource, ResourceSpans, Scope, Span } from "./otlp.ts";
import { eventTags, isError, resourceTags, serviceName, spanTags, tagLines } from "./tags.ts";

/** The last spans that came, in one SQLite database. */
export type Store = {
  readonly db: Database;
  /** Durable when it returns, against the end of the process. A span that was sent before replaces itself: exporters send again after a lost answer. */
  readonly write: (all: readonly ResourceSpans[]) => void;
  readonly close: () => void;
};

/** Who said it: spans of one resource and scope share a source. */
export type Source = { readonly service: string; readonly resource: Resource; readonly scope: Scope };
export type StoredSpan = { readonly span: Span; readonly source: Source };

const schemaVersion = 1;

/**
 * Opens the store in a folder, making it where it is missing, or in memory (":memory:"). It holds `maxSpans` spans, at times a twentieth more: the oldest go
 * in steps. Throws when another process has the folder open, or a newer version wrote it.
 */
export function openStore(dataDir: string, maxSpans: number): Store {
  const db = dataDir === ":memory:" ? new Database(dataDir) : openFile(dataDir);
  db.run("pragma temp_store = memory");
  db.run(`create table if not exists sources (
    id integer primary key, identity text not null unique, service text not null, resource text not null,
    scope text not null, tags text not null, last_seq integer not null)`);
  // What searches and lists read comes first: a row with its data may go over several pages.
  db.run(`create table if not exists spans (
    seq integer primary key, trace_id text not null, start_us integer not null, span_id text not null,
    duration_us integer not null, parent_id text not null, service text not null, operation text not null,
    error integer not null, source integer not null, tags text not null, data text not null,
    unique (trace_id, start_us, span_id))`);
  db.run("create index if not exists spans_by_service on spans (service, start_us, operation)");
  db.run(`pragma user_version = ${schemaVersion}`);

  const step = Math.max(1, Math.floor(maxSpans / 20));
  let written = step;
  const writeAll = db.transaction((all: readonly ResourceSpans[]) => {
    for (const { resource, scopeSpans } of all)
      for (const { scope, spans } of scopeSpans) written += insertSpans(db, { resource, scope }, spans);
    if (written < step) return;
    written = 0;
    prune(db, maxSpans);
  });
  return {
    db,
    write: (all) => writeAll.immediate(all),
    close: () => db.close(),
  };
}

function openFile(dataDir: string): Database {
  mkdirSync(dataDir, { recursive: true });
  const path = join(dataDir, "traces.sqlite");
  const db = new Database(path, { create: true, readwrite: true });
  try {
    // Exclusive, and held from the first write on: two collectors on one folder would each prune the other's spans.
    db.run("pragma locking_mode = exclusive");
    db.run("pragma journal_mode = wal");
    db.run("pragma synchronous = normal");
    db.run("pragma cache_size = -65536");
    const found = db.query<{ user_version: number }, []>("pragma user_version").get()?.user_version ?? 0;
    if (found > schemaVersion) throw new Error(`${path} was written by a newer version (schema ${found})`);
    return db;
  } catch (cause) {
    db.close();
    if (cause instanceof Error && "code" in cause && cause.code === "SQLITE_BUSY")
      throw new Error(`the traces in ${dataDir} are in use by another process`, { cause });
    throw cause;
  }
}

function insertSpans(
  db: Database,
  { resource, scope }: { resource: Resource; scope: Scope },
  spans: readonly Span[],
): number {
  if (spans.length === 0) return 0;
  const service = serviceName(resource);
  const source = insertSource(db, service, resource, scope);
  const insert = db.query(
    `insert or replace into spans (trace_id, start_us, span_id, duration_us, parent_id, service, operation, error, source, tags, data)
     values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  );
  let last: number | bigint = 0;
  for (const span of spans) {
    const tags = [...spanTags(span, scope), ...(span.events ?? []).flatMap(eventTags)];
    last = insert.run(
      span.traceId,
      microseconds(span.startTimeUnixNano),
      span.spanId,
      durationUs(span),
      span.parentSpanId ?? "",
      service,
      span.name,
      isError(span) ? 1 : 0,
      source,
      tagLines(tags),
      JSON.stringify(span),
    ).lastInsertRowid;
  }
  db.query("update sources set last_seq = ? where id = ?").run(last, source);
  return spans.length;
}

function insertSource(db: Database, service: string, resource: Resource, scope: Scope): number {
  const identity = JSON.stringify([resource, scope]);
  const known = db.query<{ id: number }, [string]>("select id from sources where identity = ?").get(identity);
  if (known !== null) return known.id;
  const row = [identity, service, JSON.stringify(resource), JSON.stringify(scope), tagLines(resourceTags(resource))];
  return Number(
    db
      .query("insert into sources (identity, service, resource, scope, tags, last_seq) values (?, ?, ?, ?, ?, 0)")
      .run(...row).lastInsertRowid,
  );
}

/** The oldest by arrival go, and the sources of which nothing is left. */
function prune(db: Database, maxSpans: number): void {
  const oldest = db
    .query<{ seq: number }, [number]>("select seq from spans order by seq desc limit 1 offset ?")
    .get(maxSpans);
  if (oldest === null) return;
  db.query("delete from spans where seq <= ?").run(oldest.seq);
  db.query("delete from sources where last_seq <= ?").run(oldest.seq);
}

/** Whole microseconds, in which Jaeger counts. Past 2^53 nothing is a time any more. */
export const microseconds = (nanoseconds: string): number =>
  Math.min(Number(BigInt(nanoseconds) / 1000n), Number.MAX_SAFE_INTEGER);

export function durationUs({ startTimeUnixNano, endTimeUnixNano }: Span): number {
  const duration = BigInt(endTimeUnixNano) - BigInt(startTimeUnixNano);
  return duration < 0n ? 0 : microseconds(duration.toString());
}

/** The spans of a trace by their start; none when it is unknown. */
export function readTrace({ db }: Store, traceId: string): StoredSpan[] {
  const rows = db
    .query<{ data: string; source: number }, [string]>(
      "select data, source from spans where trace_id = ? order by start_us, seq",
    )
    .all(traceId);
  const sources = new Map<number, Source>();
  return rows.map(({ data, source }) => {
    const known = sources.get(source) ?? readSource(db, source);
    sources.set(source, known);
    return { span: JSON.parse(data) as Span, source: known };
  });
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

/** What a span is called; undefined when it is not held. */
export function nameSpan(
  { db }: Store,
  traceId: string,
  spanId: string,
): { readonly service: string; readonly operation: string } | undefined {
  const row = db
    .query<{ service: string; operation: string }, [string, string]>(
      "select service, operation from spans where trace_id = ? and span_id = ?",
    )
    .get(traceId, spanId);
  return row ?? undefined;
}

/** Names of all services of which spans are held, sorted. */
export function listServices({ db }: Store): string[] {
  const rows = db.query<{ service: string }, []>("select distinct service from sources").all();
  return rows.map(({ service }) => service).toSorted();
}

/** Names of the operations of a service, sorted. */
export function listOperations({ db }: Store, service: string): string[] {
  const rows = db
    .query<{ operation: string }, [string]>("select distinct operation from spans where service = ?")
    .all(service);
  return rows.map(({ operation }) => operation).toSorted();
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
    `select span_id, parent_id, start_us, duration_us, service, operation, error from spans
     where trace_id = ? order by start_us, seq`,
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

import { Database, type SQLQueryBindings } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { codeOf } from "../../errors.ts";
import type { Resource, ResourceSpans, Scope, Span } from "./otlp.ts";
import { isError, serviceName } from "./tags.ts";
import { spanTokens } from "./tokens.ts";

/** The last spans that came, in one SQLite database. */
export type Store = {
  readonly db: Database;
  /** Durable when it returns, against the end of the process. A span that was sent before replaces itself: exporters send again after a lost answer. */
  readonly write: (all: readonly ResourceSpans[]) => void;
  readonly close: () => void;
};

const schemaVersion = 1;

/**
 * Opens the store in a folder, making it where it is missing, or in memory (":memory:"). It holds `maxSpans` spans, at times a hundredth more: the oldest go
 * in steps. Throws when another process has the folder open, or a newer version wrote it.
 */
export function openStore(dataDir: string, maxSpans: number): Store {
  const db = dataDir === ":memory:" ? new Database(dataDir) : openFile(dataDir);
  db.run("pragma temp_store = memory");
  db.run(`create table if not exists sources (
    id integer primary key, identity text not null unique, service text not null, resource text not null,
    scope text not null, last_seq integer not null)`);
  db.run(`create table if not exists operations (
    id integer primary key, service text not null, name text not null, sample text not null, last_seq integer not null,
    unique (service, name))`);
  db.run(`create table if not exists spans (
    seq integer primary key, trace_id text not null, start_us integer not null, span_id text not null,
    duration_us integer not null, parent_id text not null, error integer not null, source integer not null,
    operation integer not null, data blob not null, unique (trace_id, start_us, span_id))`);
  // Row ids are those of the spans. Measured: 7 µs and 70 bytes for a span of 20 tags, and a tag is found in a tenth of a millisecond.
  db.run(`create virtual table if not exists tokens
    using fts5 (text, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii')`);
  db.run(`pragma user_version = ${schemaVersion}`);

  const step = Math.max(1, Math.floor(maxSpans / 100));
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
    if (codeOf(cause) === "SQLITE_BUSY")
      throw new Error(`the traces in ${dataDir} are in use by another process`, { cause });
    throw cause;
  }
}

/** Returns how many there were. */
function insertSpans(
  db: Database,
  { resource, scope }: { resource: Resource; scope: Scope },
  spans: readonly Span[],
): number {
  const service = serviceName(resource);
  const source = insertSource(db, service, resource, scope);
  const operations = new Map<string, Operation>();
  const tokens = spanTokens(service, resource, scope);
  const insert = db.query<{ seq: number }, SQLQueryBindings[]>(
    `insert into spans (trace_id, start_us, span_id, duration_us, parent_id, error, source, operation, data)
     values (?, ?, ?, ?, ?, ?, ?, ?, ?)
     on conflict do update set duration_us = excluded.duration_us, parent_id = excluded.parent_id, error = excluded.error,
       source = excluded.source, operation = excluded.operation, data = excluded.data
     returning seq`,
  );
  const seqs: number[] = [];
  for (const span of spans) {
    const json = JSON.stringify(span);
    const operation = operations.get(span.name) ?? insertOperation(db, service, span.name, json);
    operations.set(span.name, operation);
    const row = insert.get(
      span.traceId,
      microseconds(span.startTimeUnixNano),
      span.spanId,
      durationUs(span),
      span.parentSpanId ?? "",
      isError(span) ? 1 : 0,
      source,
      operation.id,
      pack(json, operation.sample),
    );
    operation.lastSeq = row?.seq ?? operation.lastSeq;
    seqs.push(operation.lastSeq);
  }
  // In a loop of its own: an insert that returns something makes the full-text index write out what it has gathered, 40 µs each time.
  const insertTokens = db.query("insert or replace into tokens (rowid, text) values (?, ?)");
  for (const [at, span] of spans.entries()) insertTokens.run(seqs[at] ?? 0, tokens(span));
  const lastSeq = Math.max(0, ...[...operations.values()].map((operation) => operation.lastSeq));
  db.query("update sources set last_seq = max(last_seq, ?) where id = ?").run(lastSeq, source);
  const update = db.query("update operations set last_seq = max(last_seq, ?) where id = ?");
  for (const operation of operations.values()) update.run(operation.lastSeq, operation.id);
  return spans.length;
}

function insertSource(db: Database, service: string, resource: Resource, scope: Scope): number {
  const identity = JSON.stringify([resource, scope]);
  const known = db.query<{ id: number }, [string]>("select id from sources where identity = ?").get(identity);
  if (known !== null) return known.id;
  const { lastInsertRowid } = db
    .query("insert into sources (identity, service, resource, scope, last_seq) values (?, ?, ?, ?, 0)")
    .run(identity, service, JSON.stringify(resource), JSON.stringify(scope));
  return Number(lastInsertRowid);
}

type Operation = { readonly id: number; readonly sample: Uint8Array; lastSeq: number };

/** Its first span stays as the sample by which the others are packed: the spans of one operation look alike. */
function insertOperation(db: Database, service: string, name: string, json: string): Operation {
  const known = db
    .query<{ id: number; sample: string }, [string, string]>(
      "select id, sample from operations where service = ? and name = ?",
    )
    .get(service, name);
  const sample = Buffer.from(known?.sample ?? json);
  if (known !== null) return { id: known.id, sample, lastSeq: 0 };
  const { lastInsertRowid } = db
    .query("insert into operations (service, name, sample, last_seq) values (?, ?, ?, 0)")
    .run(service, name, json);
  return { id: Number(lastInsertRowid), sample, lastSeq: 0 };
}

/** Measured: 1,300 bytes of JSON become 110. The output comes in pieces of `chunkSize`; by default each call would take 16 KiB for its own. */
const pack = (json: string, dictionary: Uint8Array): Uint8Array =>
  zstdCompressSync(json, { dictionary, chunkSize: 1024 });
export const unpack = (data: Uint8Array, dictionary: Uint8Array): Span =>
  JSON.parse(zstdDecompressSync(data, { dictionary, chunkSize: 4096 }).toString()) as Span;

/** The oldest by arrival go, and the sources and operations of which nothing is left. */
function prune(db: Database, maxSpans: number): void {
  const oldest = db
    .query<{ seq: number }, [number]>("select seq from spans order by seq desc limit 1 offset ?")
    .get(maxSpans);
  if (oldest === null) return;
  db.query("delete from tokens where rowid in (select seq from spans where seq <= ?)").run(oldest.seq);
  for (const table of ["sources", "operations"]) db.query(`delete from ${table} where last_seq <= ?`).run(oldest.seq);
  db.query("delete from spans where seq <= ?").run(oldest.seq);
}

/** Whole microseconds, in which Jaeger counts. Past 2^53 nothing is a time any more. */
export const microseconds = (nanoseconds: string): number =>
  Math.min(Number(BigInt(nanoseconds) / 1000n), Number.MAX_SAFE_INTEGER);

export function durationUs({ startTimeUnixNano, endTimeUnixNano }: Span): number {
  const duration = BigInt(endTimeUnixNano) - BigInt(startTimeUnixNano);
  return duration < 0n ? 0 : microseconds(duration.toString());
}

import { Database, type SQLQueryBindings } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { isObject, parseJson, stringify } from "./json.ts";
import { emptyMapping, type Mapping, mergeMapping } from "./mapping.ts";
import type { Settings } from "./settings.ts";
import { forgetStatements, type Statements } from "./statements.ts";
import { addField, countsTable, countWords, termsTable, textFields, textTable } from "./tables.ts";

/** The engine's state: one SQLite file, and what of it is small enough to be kept in memory too. */
export interface Store {
  readonly db: Database;
  readonly path: string;
  readonly indices: Map<string, Index>;
  readonly close: () => void;
}

/** Alias options as given (`is_write_index`), by alias name. */
export type Aliases = ReadonlyMap<string, { readonly is_write_index?: boolean }>;

export interface Index {
  readonly number: number;
  readonly name: string;
  readonly uuid: string;
  readonly createdAt: number;
  settings: Settings;
  mapping: Mapping;
  aliases: Aliases;
  /** Sequence number of the next write; it is the row id too, so rows lie in the order of their last write. */
  nextSeq: bigint;
  /** By text field: how many documents have words in it, and how many words these are. BM25 needs both. */
  words: Map<string, { documents: number; words: number }>;
  statements: Statements | undefined;
}

const schemaVersion = 1;

/**
 * Opens the data folder, making it where it is missing. Throws when another process has it open.
 *
 * A commit is on the disk when it is acknowledged (WAL, synchronous = FULL: one fsync each), so neither a killed process
 * nor a power loss takes back what a bulk reply promised.
 */
export function openStore(dataDir: string): Store {
  mkdirSync(dataDir, { recursive: true });
  const lock = takeLock(dataDir);
  const path = join(dataDir, "search.sqlite");
  const db = new Database(path, { create: true, readwrite: true, safeIntegers: true, strict: true });
  db.run("pragma journal_mode = wal");
  db.run("pragma synchronous = full");
  db.run("pragma cache_size = -65536");
  db.run("pragma temp_store = memory");
  const found = db.query<{ user_version: bigint }, []>("pragma user_version").get()?.user_version ?? 0n;
  if (found > schemaVersion) {
    db.close();
    lock.close();
    throw new Error(`${path} was written by a newer version of the search engine (schema ${found})`);
  }
  db.run(`create table if not exists indices (
    number integer primary key autoincrement, name text not null unique, uuid text not null, created_at integer not null,
    settings text not null, mapping text not null, aliases text not null, next_seq integer not null)`);
  db.run(`pragma user_version = ${schemaVersion}`);
  const indices = new Map<string, Index>();
  for (const row of db.query<IndexRow, []>("select * from indices").all()) {
    const index = readIndex(row);
    index.words = countWords(db, index);
    indices.set(index.name, index);
  }
  const close = () => {
    for (const index of indices.values()) forgetStatements(index);
    db.close();
    lock.close();
  };
  return { db, path, indices, close };
}

/**
 * Held as a lock of the operating system on a file of its own: it goes with the process, however that ends, and leaves the
 * engine free to open the data more than once.
 */
function takeLock(dataDir: string): Database {
  const lock = new Database(join(dataDir, "search.lock"), { create: true, readwrite: true });
  try {
    lock.run("pragma locking_mode = exclusive");
    lock.run("begin exclusive");
  } catch (cause) {
    lock.close();
    const error = new Error(`the search data in ${dataDir} is in use by another process`, { cause });
    throw Object.assign(error, { code: "DATA_IN_USE" });
  }
  return lock;
}

interface IndexRow {
  number: bigint;
  name: string;
  uuid: string;
  created_at: bigint;
  settings: string;
  mapping: string;
  aliases: string;
  next_seq: bigint;
}

function readIndex(row: IndexRow): Index {
  return {
    number: Number(row.number),
    name: row.name,
    uuid: row.uuid,
    createdAt: Number(row.created_at),
    settings: new Map(JSON.parse(row.settings)),
    mapping: readMapping(row.mapping),
    aliases: new Map(JSON.parse(row.aliases)),
    nextSeq: row.next_seq,
    words: new Map(),
    statements: undefined,
  };
}

/** Inserts the index's row and makes its tables. Call inside a transaction. */
export function insertIndex(db: Database, index: Omit<Index, "number">): Index {
  const row = db
    .query<{ number: bigint }, SQLQueryBindings[]>(
      `insert into indices (name, uuid, created_at, settings, mapping, aliases, next_seq)
       values (?, ?, ?, '[]', '[]', '[]', 0) returning number`,
    )
    .get(index.name, index.uuid, index.createdAt);
  const made: Index = { ...index, number: Number(row?.number) };
  const { number } = made;
  db.run(`create table docs_${number} (seq integer primary key, id text not null unique, version integer not null)`);
  db.run(`create table sources_${number} (seq integer primary key, source text not null)`);
  db.run(`create table tombstones_${number} (
    id text primary key, version integer not null, deleted_at integer not null) without rowid`);
  for (const field of made.mapping.fields.values()) addField(db, made, field);
  saveIndex(db, made);
  return made;
}

/** Writes what changes of an index's row. Call inside the transaction of the change. */
export function saveIndex(db: Database, index: Index): void {
  db.query("update indices set settings = ?, mapping = ?, aliases = ?, next_seq = ? where number = ?").run(
    JSON.stringify([...index.settings]),
    writeMapping(index.mapping),
    JSON.stringify([...index.aliases]),
    index.nextSeq,
    index.number,
  );
}

/** Applies `edit` to each index and writes it, in one transaction. Memory is put back when that fails. */
export function changeIndices(
  store: Store,
  indices: readonly Index[],
  edit: (index: Index) => void,
  also: () => void = () => {},
): void {
  const before = indices.map(({ settings, mapping, aliases, words }) => ({
    settings,
    mapping,
    aliases,
    words: new Map(words),
  }));
  try {
    store.db.transaction(() => {
      for (const index of indices) {
        edit(index);
        saveIndex(store.db, index);
      }
      also();
    })();
  } catch (cause) {
    for (const [i, index] of indices.entries()) Object.assign(index, before[i]);
    throw cause;
  }
}

export function dropIndex(db: Database, index: Index): void {
  forgetStatements(index);
  for (const field of textFields(index.mapping)) {
    db.run(`drop table ${termsTable(index, field)}`);
    db.run(`drop table ${countsTable(index, field)}`);
    db.run(`drop table ${textTable(index, field)}`);
  }
  for (const table of ["docs", "sources", "tombstones"]) db.run(`drop table ${table}_${index.number}`);
  db.query("delete from indices where number = ?").run(index.number);
}

/** Fields as pairs in the order of their ordinals, which an object with names like "1" would not keep. */
function writeMapping(mapping: Mapping): string {
  const fields = [...mapping.fields].map(([name, field]) => [name, field.definition]);
  return stringify([mapping.dynamic ?? null, fields, mapping.meta ?? null]);
}

function readMapping(text: string): Mapping {
  const stored = parseJson(text);
  if (!Array.isArray(stored)) throw new Error("the stored mapping is not readable");
  const [dynamic = null, fields, meta = null] = stored;
  const root = { ...(dynamic === null ? {} : { dynamic }), ...(meta === null ? {} : { _meta: meta }) };
  let mapping = mergeMapping(emptyMapping, root, false);
  for (const pair of Array.isArray(fields) ? fields : []) {
    const [name, definition] = Array.isArray(pair) ? pair : [];
    if (typeof name !== "string" || !isObject(definition)) throw new Error("the stored mapping is not readable");
    mapping = mergeMapping(mapping, { properties: { [name]: definition } }, false);
  }
  return mapping;
}

import { Database, type SQLQueryBindings, type Statement } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { isObject, parseJson, stringify } from "./json.ts";
import { emptyMapping, type Field, type Mapping, mergeMapping } from "./mapping.ts";
import type { Settings } from "./settings.ts";

/** The engine's state: one SQLite file, and what of it is small enough to be kept in memory too. */
export interface Store {
  readonly db: Database;
  readonly path: string;
  readonly indices: Map<string, Index>;
  close(): void;
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

export interface Statements {
  readonly find: Statement<Record<string, bigint | null>, SQLQueryBindings[]>;
  readonly findTombstone: Statement<{ version: bigint; deleted_at: bigint }, SQLQueryBindings[]>;
  readonly insert: Statement;
  readonly insertSource: Statement;
  readonly remove: Statement;
  readonly removeSource: Statement;
  readonly bury: Statement;
  readonly exhume: Statement;
  readonly source: Statement<{ version: bigint; seq: bigint; source: string }, SQLQueryBindings[]>;
  readonly insertText: ReadonlyMap<string, Statement>;
  readonly removeText: ReadonlyMap<string, Statement>;
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

/** Makes room for a field: its column, or for words an FTS5 table and the two views into its postings. */
export function addField(db: Database, index: Index, field: Field): void {
  if (!field.indexed && field.type === "text") return;
  if (field.type !== "text") {
    db.run(`alter table docs_${index.number} add column ${valueColumn(field)}`);
    return;
  }
  db.run(`alter table docs_${index.number} add column ${wordsColumn(field)} integer`);
  db.run(`alter table docs_${index.number} add column ${lengthColumn(field)} integer`);
  const table = textTable(index, field);
  // The analyzer has made the words; FTS5 has only to part them at spaces, so every other ASCII sign belongs to a word.
  db.run(`create virtual table ${table} using fts5(
    words, content = '', contentless_delete = 1, tokenize = "ascii tokenchars '!""#$%&''()*+,-./:;<=>?@[\\]^_\`{|}~'")`);
  db.run(`create virtual table ${termsTable(index, field)} using fts5vocab(${table}, instance)`);
  db.run(`create virtual table ${countsTable(index, field)} using fts5vocab(${table}, row)`);
}

export const valueColumn = (field: Field) => `v${field.ordinal}`;
/** How many words the field has in this document. */
export const wordsColumn = (field: Field) => `w${field.ordinal}`;
/** The same as Lucene keeps it for scoring: one byte, so rounded down above 40 words. */
export const lengthColumn = (field: Field) => `l${field.ordinal}`;
const textTable = (index: Index, field: Field) => `text_${index.number}_${field.ordinal}`;
export const termsTable = (index: Index, field: Field) => `terms_${index.number}_${field.ordinal}`;
export const countsTable = (index: Index, field: Field) => `counts_${index.number}_${field.ordinal}`;

export function textFields(mapping: Mapping): Field[] {
  return [...mapping.fields.values()].filter((field) => field.type === "text" && field.indexed);
}

export function valueFields(mapping: Mapping): Field[] {
  return [...mapping.fields.values()].filter((field) => field.type !== "text");
}

export function countWords(db: Database, index: Index): Index["words"] {
  const counted: Index["words"] = new Map();
  for (const field of textFields(index.mapping)) {
    const words = wordsColumn(field);
    const row = db
      .query<{ documents: bigint; words: bigint }, []>(
        `select count(*) as documents, coalesce(sum(${words}), 0) as words from docs_${index.number} where ${words} > 0`,
      )
      .get();
    counted.set(field.name, { documents: Number(row?.documents ?? 0), words: Number(row?.words ?? 0) });
  }
  return counted;
}

/** The index's prepared statements; made anew after its mapping has changed. */
export function statementsOf(db: Database, index: Index): Statements {
  index.statements ??= prepare(db, index);
  return index.statements;
}

export function forgetStatements(index: Index): void {
  const { statements } = index;
  if (statements === undefined) return;
  const { insertText, removeText, ...single } = statements;
  for (const statement of [...Object.values(single), ...insertText.values(), ...removeText.values()])
    statement.finalize();
  index.statements = undefined;
}

function prepare(db: Database, index: Index): Statements {
  const { number, mapping } = index;
  const texts = textFields(mapping);
  const columns = [
    ...valueFields(mapping).map(valueColumn),
    ...texts.flatMap((field) => [wordsColumn(field), lengthColumn(field)]),
  ];
  const marks = ["?", "?", "?", ...columns.map(() => "?")].join(", ");
  const wordColumns = texts.map((field) => `, ${wordsColumn(field)}`).join("");
  return {
    find: db.prepare(`select seq, version${wordColumns} from docs_${number} where id = ?`),
    findTombstone: db.prepare(`select version, deleted_at from tombstones_${number} where id = ?`),
    insert: db.prepare(
      `insert into docs_${number} (${["seq", "id", "version", ...columns].join(", ")}) values (${marks})`,
    ),
    insertSource: db.prepare(`insert into sources_${number} (seq, source) values (?, ?)`),
    remove: db.prepare(`delete from docs_${number} where seq = ?`),
    removeSource: db.prepare(`delete from sources_${number} where seq = ?`),
    bury: db.prepare(`insert or replace into tombstones_${number} (id, version, deleted_at) values (?, ?, ?)`),
    exhume: db.prepare(`delete from tombstones_${number} where id = ?`),
    source: db.prepare(
      `select d.version, d.seq, s.source from docs_${number} d join sources_${number} s on s.seq = d.seq where d.id = ?`,
    ),
    insertText: new Map(
      texts.map((f) => [f.name, db.prepare(`insert into ${textTable(index, f)} (rowid, words) values (?, ?)`)]),
    ),
    removeText: new Map(texts.map((f) => [f.name, db.prepare(`delete from ${textTable(index, f)} where rowid = ?`)])),
  };
}

/** Fields as pairs in the order of their ordinals, which an object with names like "1" would not keep. */
function writeMapping(mapping: Mapping): string {
  const fields = [...mapping.fields].map(([name, field]) => [name, field.definition]);
  return stringify([mapping.dynamic ?? null, fields]);
}

function readMapping(text: string): Mapping {
  const stored = parseJson(text);
  if (!Array.isArray(stored)) throw new Error("the stored mapping is not readable");
  const [dynamic = null, fields] = stored;
  let mapping = dynamic === null ? emptyMapping : mergeMapping(emptyMapping, { dynamic }, false);
  for (const pair of Array.isArray(fields) ? fields : []) {
    const [name, definition] = Array.isArray(pair) ? pair : [];
    if (typeof name !== "string" || !isObject(definition)) throw new Error("the stored mapping is not readable");
    mapping = mergeMapping(mapping, { properties: { [name]: definition } }, false);
  }
  return mapping;
}

import type { Database } from "bun:sqlite";
import { parseDocument } from "./document.ts";
import { Refusal } from "./errors.ts";
import { gcDeletesMs } from "./settings.ts";
import { statementsOf } from "./statements.ts";
import type { Index } from "./store.ts";
import { textFields, valueFields, wordsColumn } from "./tables.ts";

export type VersionType = "internal" | "external" | "external_gte";

/** One write to one document. */
export interface Write {
  readonly op: "index" | "create" | "delete";
  readonly id: string;
  readonly version: bigint | undefined;
  readonly versionType: VersionType;
  readonly source: string;
}

export interface Written {
  readonly result: "created" | "updated" | "deleted" | "not_found";
  readonly version: bigint;
  readonly seq: bigint;
}

/** What the index knows of an id: a document, or for `index.gc_deletes` a deletion. Both have a version to beat. */
type Known =
  | { readonly version: bigint; readonly seq?: bigint; readonly words?: Record<string, bigint | null> }
  | undefined;

/** Does one write inside the caller's transaction. Throws a Refusal, having changed nothing, when it may not be done. */
export function write(db: Database, index: Index, item: Write, now: number): Written {
  const statements = statementsOf(db, index);
  const document = item.op === "delete" ? undefined : parseDocument(index.mapping, item.id, item.source);
  const known = find(db, index, item.id, now);
  const version = nextVersion(index, item, known);
  const seq = index.nextSeq;
  index.nextSeq += 1n;
  if (known?.seq !== undefined) remove(db, index, known.seq, known.words ?? {});
  if (document === undefined) {
    statements.bury.run(item.id, version, now);
    return { result: known?.seq === undefined ? "not_found" : "deleted", version, seq };
  }
  if (known !== undefined && known.seq === undefined) statements.exhume.run(item.id);
  const columns: (string | number | bigint | Buffer | null)[] = [seq, item.id, version];
  for (const field of valueFields(index.mapping)) columns.push(document.values.get(field.name) ?? null);
  for (const field of textFields(index.mapping)) {
    const words = document.words.get(field.name);
    columns.push(words?.length ?? null, words === undefined ? null : lossyLength(words.length));
    if (words === undefined || words.length === 0) continue;
    statements.insertText.get(field.name)?.run(seq, words.join(" "));
    addWords(index, field.name, 1, words.length);
  }
  statements.insert.run(...columns);
  statements.insertSource.run(seq, item.source);
  return { result: known?.seq === undefined ? "created" : "updated", version, seq };
}

/** Forgets deletions older than `index.gc_deletes`. */
export function forgetDeletions(db: Database, index: Index, now: number): void {
  db.query(`delete from tombstones_${index.number} where deleted_at < ?`).run(now - gcDeletesMs(index.settings));
}

function find(db: Database, index: Index, id: string, now: number): Known {
  const { find, findTombstone } = statementsOf(db, index);
  const row = find.get(id);
  if (row !== null) {
    const { seq, version, ...words } = row;
    return { seq: seq ?? 0n, version: version ?? 0n, words };
  }
  const tombstone = findTombstone.get(id);
  if (tombstone === null || Number(tombstone.deleted_at) < now - gcDeletesMs(index.settings)) return undefined;
  return { version: tombstone.version };
}

function nextVersion(index: Index, { op, id, version, versionType }: Write, known: Known): bigint {
  if (op === "create" && known?.seq !== undefined) {
    throw conflict(index, `[${id}]: version conflict, document already exists (current version [${known.version}])`);
  }
  if (versionType === "internal") return (known?.version ?? 0n) + 1n;
  const given = version ?? 0n;
  if (known === undefined) return given;
  const beaten = versionType === "external" ? known.version < given : known.version <= given;
  if (beaten) return given;
  const relation = versionType === "external" ? "higher or equal to" : "higher than";
  throw conflict(
    index,
    `[${id}]: version conflict, current version [${known.version}] is ${relation} the one provided [${given}]`,
  );
}

function conflict(index: Index, reason: string): Refusal {
  return new Refusal(409, "version_conflict_engine_exception", reason, {
    index_uuid: index.uuid,
    shard: "0",
    index: index.name,
  });
}

function remove(db: Database, index: Index, seq: bigint, words: Record<string, bigint | null>): void {
  const statements = statementsOf(db, index);
  statements.remove.run(seq);
  statements.removeSource.run(seq);
  for (const field of textFields(index.mapping)) {
    const count = Number(words[wordsColumn(field)] ?? 0);
    if (count === 0) continue;
    statements.removeText.get(field.name)?.run(seq);
    addWords(index, field.name, -1, -count);
  }
}

function addWords(index: Index, field: string, documents: number, words: number): void {
  const counted = index.words.get(field) ?? { documents: 0, words: 0 };
  index.words.set(field, { documents: counted.documents + documents, words: counted.words + words });
}

/** Lucene's SmallFloat: lengths above 24 keep four significant bits, in one byte. */
function lossyLength(length: number): number {
  const free = 24;
  if (length < free) return length;
  const rest = length - free;
  const shift = Math.max(0, Math.floor(Math.log2(Math.max(1, rest))) - 3);
  return free + ((rest >> shift) << shift);
}

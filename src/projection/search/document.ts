import { type SQL, sql } from "drizzle-orm";
import type { Db } from "../../db/client.ts";
import { array } from "../../db/sql.ts";
import type { ClaimedEvent } from "../../events.ts";
import type { BulkItem } from "../../search/bulk.ts";
import { hoursDeletesAreRemembered } from "../../search/indices.ts";
import { past } from "../pages.ts";

type Row = {
  entity_type: string;
  entity_id: string;
  library_id: string | null;
  book_id: string | null;
  title: string;
  text: string;
  snippet: string | null;
  rank_score: number;
  event_version: string;
  updated_at: string;
  deleted: boolean;
};

const columns = sql`s.entity_type, s.entity_id, s.library_id, s.book_id, s.title, s.snippet, s.rank_score, s.event_version::text,
           s.updated_at, s.deleted_at is not null as deleted`;

/** Text that is read at once, in bytes, or one document however long it is: some thousand long ones would not fit into memory. Postgres knows lengths without reading the text. */
const textAtOnce = 33_554_432;

/** The Elasticsearch id of an entity's document. */
function documentId(entityType: string, entityId: string): string {
  return `${entityType}:${entityId}`;
}

/**
 * The version goes into the source as digits: it is 64 bits wide, and a JS number is not. Made here and not by Postgres: json_build_object was measured at three times the cost.
 */
function source(row: Row): string {
  const { entity_type, entity_id, library_id, book_id, title, text, snippet, rank_score } = row;
  const updated_at = row.updated_at.replace(" ", "T").replace("+00", "Z");
  const fields = { entity_type, entity_id, library_id, book_id, title, text, snippet, rank_score, updated_at };
  return `${JSON.stringify(fields).slice(0, -1)},"event_version":${row.event_version}}`;
}

/**
 * One bulk item per entity, built from what search_index holds now, whatever the events said: an upsert that comes late finds the tombstone and deletes.
 * An entity without a row was deleted so long ago that even its tombstone is gone: deleted too. `events` holds at most one event of each entity; items come in their order,
 * "later" for those whose text is longer than their share of `mostText` bytes, which the only one never is.
 */
export async function buildItems(
  db: Db,
  events: readonly ClaimedEvent[],
  mostText = textAtOnce,
): Promise<(BulkItem | "later")[]> {
  // Quoted, because a row that was inserted by hand may hold any text.
  const types = array("text", [...new Set(events.map((e) => e.entityType))]);
  const ids = array(
    "uuid",
    events.map((e) => e.entityId),
  );
  // Two lists and no join, whose pairs are looked up one by one, at twice the cost. What they find beyond the pairs is left aside.
  const rows = await db.execute<Omit<Row, "text"> & { text: string | null }>(sql`
    select ${columns}, case when ${events.length}::int = 1 or octet_length(s.text) <= ${Math.floor(mostText / events.length)}::int then s.text end as text
      from search_index s where s.entity_type = any(${types}) and s.entity_id = any(${ids})`);
  const found = new Map(rows.map((row) => [documentId(row.entity_type, row.entity_id), row]));
  return events.map((event) => {
    const id = documentId(event.entityType, event.entityId);
    const row = found.get(id);
    if (row === undefined) return { op: "delete", id, version: event.eventVersion };
    const { text } = row;
    return text === null ? "later" : itemOf({ ...row, text });
  });
}

function itemOf(row: Row): BulkItem {
  const id = documentId(row.entity_type, row.entity_id);
  const version = BigInt(row.event_version);
  return row.deleted ? { op: "delete", id, version } : { op: "index", id, version, source: source(row) };
}

/** A row of search_index as the item that brings it to Elasticsearch. */
export type StoredItem = { readonly rowId: string; readonly item: BulkItem };

/**
 * What a rebuild reads: "all" documents, with what was deleted so lately that a write from before may still be under way, or what has "changed" since a mark (readMark),
 * tombstones included.
 */
export type Wanted = { readonly kind: "all" } | { readonly kind: "changed"; readonly since: string };

/** The oldest transaction that may still write: rows of it and of all that come later are "changed since". */
export async function readMark(db: Db): Promise<string> {
  const [row] = await db.execute<{ mark: string }>(sql`select pg_snapshot_xmin(pg_current_snapshot())::text as mark`);
  if (row === undefined) throw new Error("a query without a row");
  return row.mark;
}

/** Whether there is anything to be found. */
export async function hasDocuments(db: Db): Promise<boolean> {
  const rows = await db.execute(sql`select 1 from search_index where deleted_at is null limit 1`);
  return rows.length > 0;
}

/** The event that a row of search_index would be appended with, were it written now. */
export const rowEvent = sql`entity_type, entity_id, case when deleted_at is null then 'upsert' else 'delete' end, event_version`;

/** Rows of search_index (as `s`) that were written since `mark`. */
export const changedSince = (mark: string): SQL => sql`age(s.xmin) <= age((${mark}::xid8)::xid)`;

/** The next rows of search_index after the row `after` (null: the first ones), at most `limit`, up to the one that makes their text `mostText` bytes. */
export async function readItems(
  db: Db,
  wanted: Wanted,
  after: string | null,
  limit: number,
  mostText = textAtOnce,
): Promise<readonly StoredItem[]> {
  const rows = await db.execute<Row & { row_id: string }>(sql`
    select s.id::text as row_id, ${columns}, s.text
      from (select *, coalesce(sum(octet_length(s.text)) over (order by s.id rows between unbounded preceding and 1 preceding), 0) as before
              from (select * from search_index s
                     where ${past(after)}
                       and ${wanted.kind === "all" ? sql`(s.deleted_at is null or s.deleted_at > now() - ${hoursDeletesAreRemembered}::int * interval '1 hour')` : changedSince(wanted.since)}
                     order by s.id limit ${limit}) s) s
     where before < ${mostText}::bigint
     order by s.id`);
  return rows.map((row) => ({ rowId: row.row_id, item: itemOf(row) }));
}

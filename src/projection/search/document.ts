import { sql } from "drizzle-orm";
import type { Db } from "../../db/client.ts";
import type { ClaimedEvent } from "../../outbox/event.ts";
import type { BulkItem } from "../../search/bulk.ts";

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
 * An entity without a row was deleted so long ago that even its tombstone is gone: deleted too. `events` holds at most one event of each entity; items come in their order.
 */
export async function buildItems(db: Db, events: readonly ClaimedEvent[]): Promise<BulkItem[]> {
  const types = `{${events.map((e) => e.entityType).join(",")}}`;
  const ids = `{${events.map((e) => e.entityId).join(",")}}`;
  const rows = await db.execute<Row>(sql`
    select s.entity_type, s.entity_id, s.library_id, s.book_id, s.title, s.text, s.snippet, s.rank_score, s.event_version::text,
           s.updated_at, s.deleted_at is not null as deleted
      from unnest(${types}::text[], ${ids}::uuid[]) as k(entity_type, entity_id)
      join search_index s on s.entity_type = k.entity_type and s.entity_id = k.entity_id`);
  const found = new Map(rows.map((row) => [documentId(row.entity_type, row.entity_id), row]));
  return events.map((event) => {
    const id = documentId(event.entityType, event.entityId);
    const row = found.get(id);
    if (row === undefined) return { op: "delete", id, version: event.eventVersion };
    const version = BigInt(row.event_version);
    return row.deleted ? { op: "delete", id, version } : { op: "index", id, version, source: source(row) };
  });
}

import { sql } from "drizzle-orm";
import type { Db } from "../../db/client.ts";
import type { ClaimedEvent } from "../../outbox/event.ts";
import type { BulkItem } from "../../search/bulk.ts";

type Row = { key: string; version: string /** The document; null for a tombstone. */; source: string | null };

/** The Elasticsearch id of an entity's document. */
export function documentId(entityType: string, entityId: string): string {
  return `${entityType}:${entityId}`;
}

/**
 * One bulk item per entity, built by Postgres from what search_index holds now, whatever the events said: an upsert that comes late finds the tombstone and deletes.
 * An entity without a row was deleted so long ago that even its tombstone is gone: deleted too. `events` holds at most one event of each entity; items come in their order.
 */
export async function buildItems(db: Db, events: readonly ClaimedEvent[]): Promise<BulkItem[]> {
  const keys = JSON.stringify(events.map((e) => [e.entityType, e.entityId]));
  const rows = await db.execute<Row>(sql`
    select s.entity_type || ':' || s.entity_id as key, s.event_version::text as version,
           case when s.deleted_at is null then json_build_object(
             'entity_type', s.entity_type, 'entity_id', s.entity_id, 'library_id', s.library_id, 'book_id', s.book_id, 'title', s.title, 'text', s.text,
             'snippet', s.snippet, 'rank_score', s.rank_score, 'event_version', s.event_version, 'updated_at', s.updated_at)::text end as source
      from jsonb_array_elements(${keys}::jsonb) k
      join search_index s on s.entity_type = k->>0 and s.entity_id = (k->>1)::uuid`);
  const found = new Map(rows.map((row) => [row.key, row]));
  return events.map((event) => {
    const id = documentId(event.entityType, event.entityId);
    const row = found.get(id);
    if (row === undefined) return { op: "delete", id, version: event.eventVersion };
    const version = BigInt(row.version);
    return row.source === null ? { op: "delete", id, version } : { op: "index", id, version, source: row.source };
  });
}

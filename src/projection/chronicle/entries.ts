import { sql } from "drizzle-orm";
import type { Db } from "../../db/client.ts";
import { array } from "../../db/sql.ts";
import { past } from "../pages.ts";

/**
 * Writes the entries of some chronicle events, keyed by the event's id. Returns what was there already as it should be ("same"), what was written, and leaves out
 * events that do not exist. One statement: all or nothing.
 */
export async function writeEntries(
  db: Db,
  ids: readonly string[],
  projectionVersion: number,
): Promise<Map<string, "written" | "same">> {
  const rows = await db.execute<{ id: string; written: boolean }>(sql`
    with wanted as materialized (
      select c.* from chronicle_events c where c.id = any(${array("uuid", ids)})
    ), entries as (
      insert into chronicle_entries as e (id, event_type, entity_type, entity_id, library_id, book_id, block_id, actor_id, occurred_at, created_at, payload, summary,
                                          schema_version, provenance, source, actor_kind, correlation_id, projection_version)
      select id, event_type, entity_type, entity_id, library_id, book_id, block_id, actor_id, occurred_at, created_at, payload,
             concat_ws(' ', replace(event_type, '_', ' '), 'book ' || book_id::text, 'block ' || block_id::text),
             schema_version, provenance, source, actor_kind, correlation_id, ${projectionVersion}::int
        from wanted
          on conflict (id) do update
         set event_type = excluded.event_type, payload = excluded.payload, summary = excluded.summary, projection_version = excluded.projection_version, updated_at = now()
       where (e.event_type, e.payload, e.summary, e.projection_version) is distinct from (excluded.event_type, excluded.payload, excluded.summary, excluded.projection_version)
      returning e.id
    )
    select w.id::text, e.id is not null as written from wanted w left join entries e on e.id = w.id`);
  return new Map(rows.map((row) => [row.id, row.written ? "written" : "same"]));
}

/** The ids of the next chronicle events after `after` (null: of the first ones), at most `limit`. */
export async function eventIdsAfter(db: Db, after: string | null, limit: number): Promise<string[]> {
  const rows = await db.execute<{ id: string }>(
    sql`select id::text from chronicle_events where ${past(after)} order by id limit ${limit}`,
  );
  return rows.map(({ id }) => id);
}

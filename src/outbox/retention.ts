import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import type { Queue } from "./event.ts";

/** Deletes up to `step` processed events older than `hours`, oldest first. Returns how many; fewer than `step` means that none is left. */
export async function pruneDone(db: Db, queue: Queue, hours: number, step: number): Promise<number> {
  const done = sql.identifier(`${queue.table}_done`);
  const rows = await db.execute(sql`
    with old as materialized (
      select ctid from ${done} where processed_at < now() - ${hours}::float8 * interval '1 hour' order by processed_at limit ${step} for update skip locked
    )
    delete from ${done} d where d.ctid = any(array(select ctid from old))
    returning 1`);
  return rows.length;
}

/**
 * When the oldest unfinished event was appended (null when there is none): a tombstone older than every unfinished event can go, because none of them
 * can still bring its entity back.
 */
export async function oldestUnfinished(db: Db, queue: Queue): Promise<string | null> {
  const live = sql.identifier(`${queue.table}_live`);
  const [row] = await db.execute<{ oldest: string | null }>(sql`
    select min(created_at)::text as oldest from (
      (select created_at from ${live} where status = 'pending' and next_retry_at is null order by id limit 1)
      union all (select min(created_at) from ${live} where status = 'pending' and next_retry_at is not null)
      union all (select min(created_at) from ${live} where status = 'processing')) o`);
  return row?.oldest ?? null;
}

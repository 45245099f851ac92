import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { array } from "../db/sql.ts";
import { live, type Queue } from "./queue.ts";

export type ReplayRequest = {
  /** Who asks, and why: both are kept for ever. */
  readonly by: string;
  readonly reason: string;
  readonly limit: number;
  readonly entityType?: string | undefined;
  /** Only events that failed within this many hours. */
  readonly sinceHours?: number | undefined;
  readonly ids?: readonly bigint[] | undefined;
};

function chosen(queue: Queue, request: ReplayRequest) {
  return sql`
    select ctid, id, error_reason, error, attempts from ${live(queue)}
     where next_retry_at = 'infinity' and status = 'failed'
       ${request.entityType === undefined ? sql`` : sql`and entity_type = ${request.entityType}`}
       ${request.sinceHours === undefined ? sql`` : sql`and updated_at > now() - ${request.sinceHours}::float8 * interval '1 hour'`}
       ${request.ids === undefined ? sql`` : sql`and id = any(${array("bigint", request.ids)})`}
     order by next_retry_at, id + 0 limit ${request.limit}`;
}

/** The failed events that such a replay would revive. */
export async function replayable(db: Db, queue: Queue, request: ReplayRequest): Promise<bigint[]> {
  const rows = await db.execute<{ id: string }>(
    sql`select c.id::text from (${chosen(queue, request)}) c order by c.id`,
  );
  return rows.map((row) => BigInt(row.id));
}

/**
 * Puts failed events back into the queue, at most `limit`, with an audit row each in the same statement: failed never revives without one.
 * `attempts` keeps counting; the count towards the limit starts again. Returns the ids.
 */
export async function replay(db: Db, queue: Queue, request: ReplayRequest): Promise<bigint[]> {
  const rows = await db.execute<{ id: string }>(sql`
    with chosen as materialized (${chosen(queue, request)} for update skip locked),
    audit as (
      insert into outbox_replays (projection, replayed_by, reason, event_id, error_reason, error, attempts)
      select ${queue.projection}, ${request.by}, ${request.reason}, id, error_reason, error, attempts from chosen
    ), revived as (
      update ${live(queue)} e
         set status = 'pending', counted_attempts = 0, reclaim_count = 0, next_retry_at = now(), updated_at = now(),
             replay_count = e.replay_count + 1, last_replayed_at = now(), last_replayed_by = ${request.by}, last_replayed_reason = ${request.reason}
       where e.ctid = any(array(select ctid from chosen))
      returning e.id
    )
    select r.id::text from revived r order by r.id`);
  return rows.map((row) => BigInt(row.id));
}

/** Who revived these events, and why: the audit, the oldest first. */
export const replaysOf = async (db: Db, ids: readonly string[]): Promise<readonly Record<string, unknown>[]> =>
  Array.from(
    await db.execute(sql`
      select event_id::text, replayed_by, reason, error_reason, attempts from outbox_replays
       where event_id = any(${array("bigint", ids)}) order by outbox_replays.id`),
  );

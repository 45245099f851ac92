import { type SQL, sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { milliseconds } from "../db/sql.ts";
import type { Op, Reclaimed } from "../events.ts";
import { live, type Queue } from "./queue.ts";

type Row = {
  id: string;
  entity_type: string;
  entity_id: string;
  op: Op;
  event_version: string;
  attempts: number;
  held_by: string | null;
  held_batch: string | null;
  last_reclaimed_reason: Reclaimed["why"];
  status: Reclaimed["status"];
  reclaim_count: number;
  traceparent: string | null;
  tracestate: string | null;
};

const atOnce = 1000;
/**
 * How often an event is lost at least before it is failed, however few attempts it has. One loss says nothing of the event: a worker that is killed loses all that it held.
 * The second may be the same crash, met again by the worker that was started in its place.
 */
const fewestLosses = 3;

/** True of a row under lease that reclaim takes: the lease ran out, or it was worked on for longer than `maxProcessingMs`. */
export const lapsed = (maxProcessingMs: number): SQL =>
  sql`(lease_until < now() or processing_started_at < now() - ${milliseconds(maxProcessingMs)})`;

/**
 * Takes back rows whose lease ran out or that were worked on for longer than `maxProcessingMs`, at most a thousand, and writes who took them, from whom, when and why. None
 * is left when it returns none. A row that was lost `maxAttempts` times, but three times at least, is failed: whatever holds it dies. `attempts` stays: the send may have
 * happened. Forgets the leases of which nothing is left.
 */
export async function reclaim(
  db: Db,
  queue: Queue,
  by: string,
  maxProcessingMs: number,
  maxAttempts: number,
): Promise<Reclaimed[]> {
  const maxLosses = Math.max(fewestLosses, maxAttempts);
  const rows = await db.execute<Row>(sql`
    with held as materialized (
      select claim_batch_id, ids from outbox_leases where projection = ${queue.projection}
    ), lapsed as materialized (
      select ctid, id, claim_batch_id from ${live(queue)}
       where id = any(array(select unnest(ids) from held)) and status = 'processing' and ${lapsed(maxProcessingMs)}
       order by lease_until
       limit ${atOnce}
         for update skip locked
    ), taken as (
      update ${live(queue)} e
         set status = case when e.reclaim_count + 1 >= ${maxLosses}::int then 'failed' else 'pending' end,
             error_reason = case when e.reclaim_count + 1 >= ${maxLosses}::int then 'lease_expired' else e.error_reason end,
             error = case when e.reclaim_count + 1 >= ${maxLosses}::int then 'the lease ran out ' || (e.reclaim_count + 1) || ' times' else e.error end,
             next_retry_at = case when e.reclaim_count + 1 >= ${maxLosses}::int then 'infinity'::timestamptz else now() end,
             reclaim_count = e.reclaim_count + 1, last_reclaimed_at = now(), last_reclaimed_by = ${by}, last_reclaimed_from = e.owner,
             last_reclaimed_reason = case when e.lease_until < now() then 'lease_expired' else 'max_processing_seconds' end,
             owner = null, claim_batch_id = null, lease_until = null, processing_started_at = null, updated_at = now()
       where e.ctid = any(array(select ctid from lapsed))
      returning e.*
    ), ended as (
      delete from outbox_leases o
       where o.claim_batch_id in (select h.claim_batch_id from held h
                                   where not exists (select from ${live(queue)} e where e.id = any(h.ids) and e.status = 'processing' and e.claim_batch_id = h.claim_batch_id))
    )
    select t.id::text, t.entity_type, t.entity_id, t.op, t.event_version::text, t.attempts, t.last_reclaimed_from as held_by, l.claim_batch_id as held_batch, t.last_reclaimed_reason, t.status, t.reclaim_count, t.traceparent, t.tracestate
      from taken t join lapsed l on l.id = t.id
     order by t.id`);
  return rows.map((row) => ({
    id: BigInt(row.id),
    entityType: row.entity_type,
    entityId: row.entity_id,
    op: row.op,
    eventVersion: BigInt(row.event_version),
    attempts: row.attempts,
    from: row.held_by,
    claimBatchId: row.held_batch,
    why: row.last_reclaimed_reason,
    status: row.status,
    reclaimCount: row.reclaim_count,
    traceparent: row.traceparent,
    tracestate: row.tracestate,
  }));
}

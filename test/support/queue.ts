import { sql } from "drizzle-orm";
import type { Db, Tx } from "../../src/db/client.ts";
import type { Lease, NewEvent, Outcome } from "../../src/events.ts";
import { appending } from "../../src/outbox/append.ts";
import type { Queue } from "../../src/outbox/queue.ts";

/** A row of a queue, live or done. */
export type QueueRow = {
  id: string;
  status: "pending" | "processing" | "failed" | "done";
  entity_id: string;
  owner: string | null;
  claim_batch_id: string | null;
  attempts: number;
  counted_attempts: number;
  result: string | null;
  error_reason: string | null;
  error: string | null;
  reclaim_count: number;
  last_reclaimed_by: string | null;
  last_reclaimed_from: string | null;
  last_reclaimed_reason: string | null;
  replay_count: number;
  last_replayed_by: string | null;
  last_replayed_reason: string | null;
  leased: boolean;
  /** Milliseconds until it is due; negative when overdue, null when it never was to wait, and when it has failed. */
  due_in_ms: number | null;
};

/** Every row of a queue by id. */
export async function rowsOf(db: Db, queue: Queue): Promise<Map<bigint, QueueRow>> {
  const rows = await db.execute<QueueRow>(sql`
    select id::text, status, entity_id, owner, claim_batch_id, attempts, counted_attempts, result, error_reason, error, reclaim_count, last_reclaimed_by, last_reclaimed_from,
           last_reclaimed_reason, replay_count, last_replayed_by, last_replayed_reason, coalesce(lease_until > now(), false) as leased,
           extract(epoch from nullif(next_retry_at, 'infinity') - now())::float8 * 1000 as due_in_ms
      from ${sql.identifier(queue.table)} q order by q.id`);
  return new Map(rows.map((row) => [BigInt(row.id), row]));
}

export const newEvents = (count: number, over: Partial<NewEvent> = {}): NewEvent[] =>
  Array.from({ length: count }, (_, i) => ({
    entityType: "tag",
    entityId: crypto.randomUUID(),
    op: "upsert",
    eventVersion: BigInt(i + 1),
    ...over,
  }));

/** Appends events, in their order. */
export async function enqueue(db: Db | Tx, queue: Queue, events: readonly NewEvent[]): Promise<void> {
  const rows = JSON.stringify(events.map((e) => [e.entityType, e.entityId, e.op, e.eventVersion.toString()]));
  const select = sql`select e->>0, (e->>1)::uuid, e->>2, (e->>3)::bigint, null, null from jsonb_array_elements(${rows}::jsonb) with ordinality as r(e, n) order by n`;
  await db.execute(appending(queue, select));
}

/** What the lease of each row and the lane of each row must be, as the ids of those that are not: all that is processing is found through outbox_leases, nothing that failed is ever due. */
export async function astray(db: Db, queue: Queue): Promise<{ lost: string[]; due: string[] }> {
  const live = sql.identifier(`${queue.table}_live`);
  const rows = await db.execute<{ id: string; status: string }>(sql`
    select e.id::text, e.status from ${live} e
     where (e.status = 'processing'
            and not exists (select from outbox_leases l where l.claim_batch_id = e.claim_batch_id and l.projection = ${queue.projection} and e.id = any(l.ids)))
        or (e.status = 'failed') <> coalesce(e.next_retry_at = 'infinity', false)
     order by e.id`);
  const ids = (processing: boolean) => rows.filter((r) => (r.status === "processing") === processing).map((r) => r.id);
  return { lost: ids(true), due: ids(false) };
}

/** The batches that outbox_leases knows. */
export async function leasesOf(db: Db, queue: Queue): Promise<string[]> {
  const rows = await db.execute<{ id: string }>(
    sql`select claim_batch_id::text as id from outbox_leases where projection = ${queue.projection} order by 1`,
  );
  return rows.map((r) => r.id);
}

/** Takes every row out, of the history and the replays too. */
export async function empty(db: Db, queue: Queue): Promise<void> {
  // Not by TRUNCATE, which makes new files for each index: 20 times as long for a few rows.
  await db.execute(
    sql`with audit as (delete from outbox_replays), held as (delete from outbox_leases) delete from ${sql.identifier(queue.table)}`,
  );
}

/** Lets the lease of a batch run out without waiting for it. */
export async function expire(db: Db, queue: Queue, lease: Lease): Promise<void> {
  await db.execute(sql`
    update ${sql.identifier(`${queue.table}_live`)} set lease_until = now() - interval '1 second' where claim_batch_id = ${lease.claimBatchId}::uuid`);
}

/** The same outcome for every event of a batch. */
export const all = (lease: Lease, outcome: Outcome): Map<bigint, Outcome> =>
  new Map(lease.events.map((e) => [e.id, outcome]));

export const applied: Outcome = { kind: "done", result: "applied", sent: true };

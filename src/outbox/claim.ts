import { type SQL, sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { array, milliseconds } from "../db/sql.ts";
import type { Lease } from "../events.ts";
import { pause } from "../pause.ts";
import { asText, fromText, type Taken, type TextRows } from "./claimed-rows.ts";
import { createFloor } from "./floor.ts";
import { live, type Queue } from "./queue.ts";

export type ClaimOptions = {
  /** The worker's name, written to the rows. */
  readonly owner: string;
  readonly leaseMs: number;
  /** Labs only: select without a lock, wait this long, then update. undefined claims atomically. */
  readonly breakClaimMs?: number | undefined;
  /** Ends that wait, and nothing is taken. */
  readonly stop?: AbortSignal | undefined;
};

/** Takes up to `limit` due events under one fresh lease; null when nothing is due. */
export type Claim = (limit: number) => Promise<Lease | null>;

/**
 * The two lanes, as the places of their rows; "id + 0" are the words of their index (drizzle/0007). What is under lease is still in its lane, and passed over. The CTEs are
 * materialized because an inlined LIMIT subquery may run more than once and lock more rows than asked for.
 */
function due(queue: Queue, limit: number, floor: bigint, retriesFirst: boolean, lock: boolean) {
  const locking = lock ? sql`for update skip locked` : sql``;
  const retry = (rest: ReturnType<typeof sql>) => sql`
    select ctid from ${live(queue)} where status = 'pending' and next_retry_at <= now() order by next_retry_at, id + 0 limit ${rest} ${locking}`;
  const fresh = (rest: ReturnType<typeof sql>) => sql`
    select ctid from ${live(queue)} where status = 'pending' and next_retry_at is null and id + 0 >= ${floor.toString()}::bigint order by next_retry_at, id + 0 limit ${rest} ${locking}`;
  const [first, second] = retriesFirst ? [retry, fresh] : [fresh, retry];
  return sql`first as materialized (${first(sql`${limit}::int`)}),
    second as materialized (${second(sql`${limit}::int - (select count(*) from first)`)}),
    due as (select ctid from first union all select ctid from second)`;
}

function lease(queue: Queue, { owner, leaseMs }: ClaimOptions, claimBatchId: string) {
  // Changes no indexed column (drizzle/0008). By ctid: the rows are locked, and it needs no plan. A join is planned for how many rows there were once, and then reads the
  // whole table. RETURNING promises no order, and two events of one entity must keep theirs.
  return sql`leased as (
      update ${live(queue)} e
         set status = 'processing', owner = ${owner}, claim_batch_id = ${claimBatchId}::uuid, attempts = e.attempts + 1,
             lease_until = now() + ${milliseconds(leaseMs)}, processing_started_at = now(), updated_at = now()
       where e.ctid = any(array(select ctid from due))
      returning e.id, e.entity_type, e.entity_id, e.op, e.event_version, e.attempts, e.counted_attempts, e.traceparent, e.tracestate, e.created_at,
                e.next_retry_at is null as fresh
    ), held as (
      insert into outbox_leases (claim_batch_id, projection, ids)
      select ${claimBatchId}::uuid, ${queue.projection}, array_agg(id) from leased having count(*) > 0
    )`;
}

/** Takes the rows of `chosen`, a CTE named due, under the lease. */
async function take(db: Db, queue: Queue, options: ClaimOptions, claimBatchId: string, chosen: SQL): Promise<Taken[]> {
  const answer = await db.execute<TextRows>(
    sql`with ${chosen}, ${lease(queue, options, claimBatchId)} select ${asText("")} from leased`,
  );
  const taken = fromText(answer, "");
  if (taken !== null) return taken;
  // What is under lease by now, once more.
  const mark = crypto.randomUUID();
  const again = await db.execute<TextRows>(sql`
    with held as materialized (select unnest(ids) as id from outbox_leases where claim_batch_id = ${claimBatchId}::uuid),
         leased as (select *, next_retry_at is null as fresh from ${live(queue)}
                     where id = any(array(select id from held)) and claim_batch_id = ${claimBatchId}::uuid)
    select ${asText(mark)} from leased`);
  const told = fromText(again, mark);
  if (told === null) throw new Error("a claim whose rows cannot be told apart");
  return told;
}

/**
 * The experiment of drill E: between choosing rows and taking them another worker may take them too. The fence keeps the result right.
 * What failed in between stays failed: only an audited replay revives it.
 */
async function claimWithoutLock(
  db: Db,
  queue: Queue,
  options: ClaimOptions,
  claimBatchId: string,
  limit: number,
): Promise<Taken[]> {
  const chosen = await db.execute<{ id: string }>(
    sql`with ${due(queue, limit, 0n, true, false)} select e.id::text from ${live(queue)} e where e.ctid = any(array(select ctid from due))`,
  );
  await pause(options.breakClaimMs ?? 0, options.stop);
  if (chosen.length === 0 || options.stop?.aborted === true) return [];
  const ids = array(
    "bigint",
    chosen.map((row) => row.id),
  );
  const still = sql`due as materialized (
      select ctid from ${live(queue)} where id = any(${ids}) and status in ('pending', 'processing') order by id for update
    )`;
  return await take(db, queue, options, claimBatchId, still);
}

/** Gives back the rows of a claim whose answer never came: otherwise its lease would have to run out first. Nothing was sent. */
async function giveBack(db: Db, queue: Queue, claimBatchId: string): Promise<void> {
  await db.execute(sql`
    with held as (delete from outbox_leases where claim_batch_id = ${claimBatchId}::uuid returning ids)
    update ${live(queue)}
       set status = 'pending', owner = null, claim_batch_id = null, lease_until = null, processing_started_at = null, attempts = attempts - 1, next_retry_at = now(), updated_at = now()
     where id = any(array(select unnest(ids) from held)) and status = 'processing' and claim_batch_id = ${claimBatchId}::uuid`);
}

/**
 * Opens the claiming side of a queue. The lanes take turns in going first, so that neither a storm of retries nor a flood of writes starves the other.
 * Throws what the driver throws.
 */
export function openClaim(db: Db, queue: Queue, options: ClaimOptions): Claim {
  const floor = createFloor();
  let retriesFirst = false;
  /** Claims that failed, though Postgres may have carried them out. */
  const unanswered = new Set<string>();
  return async (limit) => {
    for (const lost of unanswered) {
      await giveBack(db, queue, lost);
      unanswered.delete(lost);
    }
    const claimBatchId = crypto.randomUUID();
    const sentAt = performance.now();
    retriesFirst = !retriesFirst;
    unanswered.add(claimBatchId);
    const events =
      options.breakClaimMs === undefined
        ? await take(db, queue, options, claimBatchId, due(queue, limit, floor.next(sentAt), retriesFirst, true))
        : await claimWithoutLock(db, queue, options, claimBatchId, limit);
    unanswered.delete(claimBatchId);
    const tookMs = performance.now() - sentAt;
    floor.claimed(sentAt, tookMs, events.find((e) => e.fresh)?.id, events.length === limit);
    if (events.length === 0) return null;
    return { claimBatchId, owner: options.owner, events, expiresAt: sentAt + options.leaseMs };
  };
}

/**
 * Extends a lease by `leaseMs` from now, but never past `maxProcessingMs` after the claim: from then on reclaim takes it. Returns how many of its rows are still ours;
 * updates `lease.expiresAt` when all are.
 */
export async function renew(
  db: Db,
  queue: Queue,
  lease: Lease,
  leaseMs: number,
  maxProcessingMs: number,
): Promise<number> {
  const sentAt = performance.now();
  const ids = array(
    "bigint",
    lease.events.map((e) => e.id),
  );
  const [row] = await db.execute<{ held: number; left_ms: number | null }>(sql`
    with renewed as (
      update ${live(queue)}
         set lease_until = least(now() + ${milliseconds(leaseMs)}, processing_started_at + ${milliseconds(maxProcessingMs)}),
             updated_at = now()
       where id = any(${ids}) and status = 'processing' and claim_batch_id = ${lease.claimBatchId}::uuid
         and processing_started_at > now() - ${milliseconds(maxProcessingMs)}
      returning lease_until
    )
    select count(*)::int as held, extract(epoch from min(lease_until) - now())::float8 * 1000 as left_ms from renewed`);
  const held = row?.held ?? 0;
  if (held === lease.events.length) lease.expiresAt = sentAt + (row?.left_ms ?? 0);
  return held;
}

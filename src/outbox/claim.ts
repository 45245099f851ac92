import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import type { ClaimedEvent, Lease, Op, Queue, Subject } from "./event.ts";

export type ClaimOptions = {
  /** The worker's name, written to the rows. */
  readonly owner: string;
  readonly leaseMs: number;
  /** Labs only: select without a lock, wait this long, then update. undefined claims atomically. */
  readonly breakClaimMs?: number | undefined;
};

/** Takes up to `limit` due events under one fresh lease; null when nothing is due. */
export type Claim = (limit: number) => Promise<Lease | null>;

/**
 * Where the fresh lane starts to look. Ids are handed out at insert and seen at commit, so a slow transaction's rows appear below ids that were claimed long ago;
 * yet scanning from the start every time meets every dead row that some other transaction pins (measured: 2.5 times slower). So the floor is the first id of the
 * last claim while there is a backlog, an older one once it is drained, and nothing at all now and then.
 */
type Floor = {
  readonly next: (now: number) => bigint;
  readonly claimed: (now: number, firstFresh: bigint | undefined, full: boolean) => void;
};

/** Rows that commit within this time of their insert are never below the relaxed floor. */
const relaxedMs = 2000;
/** The longest that a row of a slower transaction waits. */
const resetMs = 3000;

function createFloor(): Floor {
  let tight = 0n;
  let relaxed = 0n;
  let upcoming = 0n;
  let turnedAt = Number.NEGATIVE_INFINITY;
  let resetAt = Number.NEGATIVE_INFINITY;
  let backlog = false;
  return {
    next: (now) => {
      if (now - resetAt >= resetMs) {
        resetAt = now;
        return 0n;
      }
      return backlog ? tight : relaxed;
    },
    claimed: (now, firstFresh, full) => {
      backlog = full;
      if (firstFresh !== undefined && firstFresh > tight) tight = firstFresh;
      if (now - turnedAt >= relaxedMs) {
        relaxed = upcoming;
        upcoming = tight;
        turnedAt = now;
      }
    },
  };
}

type Row = {
  id: string;
  entity_type: Subject;
  entity_id: string;
  op: Op;
  event_version: string;
  attempts: number;
  counted_attempts: number;
  age_seconds: number;
  fresh: boolean;
  traceparent: string | null;
  tracestate: string | null;
};

function toEvent(row: Row): ClaimedEvent {
  return {
    id: BigInt(row.id),
    entityType: row.entity_type,
    entityId: row.entity_id,
    op: row.op,
    eventVersion: BigInt(row.event_version),
    attempts: row.attempts,
    countedAttempts: row.counted_attempts,
    ageSeconds: row.age_seconds,
    traceparent: row.traceparent,
    tracestate: row.tracestate,
  };
}

/** The two lanes. The CTEs are materialized because an inlined LIMIT subquery may run more than once and lock more rows than asked for. */
function due(queue: Queue, limit: number, floor: bigint, retriesFirst: boolean, lock: boolean) {
  const live = sql.identifier(`${queue.table}_live`);
  const locking = lock ? sql`for update skip locked` : sql``;
  const retry = (rest: ReturnType<typeof sql>) => sql`
    select id, false as fresh from ${live} where status = 'pending' and next_retry_at is not null and next_retry_at <= now() order by next_retry_at, id limit ${rest} ${locking}`;
  const fresh = (rest: ReturnType<typeof sql>) => sql`
    select id, true as fresh from ${live} where status = 'pending' and next_retry_at is null and id >= ${floor.toString()}::bigint order by id limit ${rest} ${locking}`;
  const [first, second] = retriesFirst ? [retry, fresh] : [fresh, retry];
  return sql`first as materialized (${first(sql`${limit}::int`)}),
    second as materialized (${second(sql`${limit}::int - (select count(*) from first)`)}),
    due as (select * from first union all select * from second)`;
}

function lease(queue: Queue, { owner, leaseMs }: ClaimOptions, claimBatchId: string) {
  // RETURNING promises no order, and two events of one entity must keep theirs.
  return sql`leased as (
      update ${sql.identifier(`${queue.table}_live`)} e
         set status = 'processing', owner = ${owner}, claim_batch_id = ${claimBatchId}::uuid, attempts = e.attempts + 1,
             lease_until = now() + ${leaseMs}::float8 * interval '1 millisecond', processing_started_at = now(), updated_at = now()
        from due
       where e.id = due.id
      returning e.id, e.entity_type, e.entity_id, e.op, e.event_version, e.attempts, e.counted_attempts, e.traceparent, e.tracestate, e.created_at, due.fresh
    )
    select id::text, entity_type, entity_id, op, event_version::text, attempts, counted_attempts, traceparent, tracestate, fresh,
           extract(epoch from clock_timestamp() - created_at)::float8 as age_seconds
      from leased order by id`;
}

/** The experiment of drill E: between choosing rows and taking them another worker may take them too. The fence keeps the result right. */
async function claimWithoutLock(
  db: Db,
  queue: Queue,
  options: ClaimOptions,
  claimBatchId: string,
  limit: number,
): Promise<Row[]> {
  const chosen = await db.execute<{ id: string; fresh: boolean }>(
    sql`with ${due(queue, limit, 0n, true, false)} select id::text, fresh from due`,
  );
  await Bun.sleep(options.breakClaimMs ?? 0);
  if (chosen.length === 0) return [];
  const ids = `{${chosen.map((row) => row.id).join(",")}}`;
  return await db.execute<Row>(
    sql`with due as (select unnest(${ids}::bigint[]) as id, true as fresh), ${lease(queue, options, claimBatchId)}`,
  );
}

/**
 * Opens the claiming side of a queue. The lanes take turns in going first, so that neither a storm of retries nor a flood of writes starves the other.
 * Throws what the driver throws.
 */
export function openClaim(db: Db, queue: Queue, options: ClaimOptions): Claim {
  const floor = createFloor();
  let retriesFirst = false;
  return async (limit) => {
    const claimBatchId = crypto.randomUUID();
    const sentAt = performance.now();
    retriesFirst = !retriesFirst;
    const rows =
      options.breakClaimMs === undefined
        ? await db.execute<Row>(
            sql`with ${due(queue, limit, floor.next(sentAt), retriesFirst, true)}, ${lease(queue, options, claimBatchId)}`,
          )
        : await claimWithoutLock(db, queue, options, claimBatchId, limit);
    const firstFresh = rows.find((row) => row.fresh);
    floor.claimed(sentAt, firstFresh ? BigInt(firstFresh.id) : undefined, rows.length === limit);
    if (rows.length === 0) return null;
    return { claimBatchId, owner: options.owner, events: rows.map(toEvent), expiresAt: sentAt + options.leaseMs };
  };
}

/**
 * Extends a lease by `leaseMs` from now, but never past `maxProcessingMs` after the claim. Returns how many of its rows are still ours;
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
  const ids = `{${lease.events.map((e) => e.id).join(",")}}`;
  const rows = await db.execute(sql`
    update ${sql.identifier(`${queue.table}_live`)}
       set lease_until = now() + ${leaseMs}::float8 * interval '1 millisecond', updated_at = now()
     where id = any(${ids}::bigint[]) and status = 'processing' and claim_batch_id = ${lease.claimBatchId}::uuid
       and processing_started_at > now() - ${maxProcessingMs}::float8 * interval '1 millisecond'
    returning 1`);
  if (rows.length === lease.events.length) lease.expiresAt = sentAt + leaseMs;
  return rows.length;
}

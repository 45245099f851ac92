import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { array } from "../db/sql.ts";
import type { Lease, Outcome } from "../events.ts";
import { history, live, type Queue } from "./queue.ts";

const maxErrorLength = 8000;

/** Every column that history keeps as it was. */
const kept = sql.raw(
  "id, entity_type, entity_id, op, event_version, created_at, owner, claim_batch_id, counted_attempts, traceparent, tracestate, " +
    "reclaim_count, last_reclaimed_at, last_reclaimed_by, last_reclaimed_from, last_reclaimed_reason, replay_count, last_replayed_at, last_replayed_by, last_replayed_reason",
);

type Kept = {
  status: "pending" | "failed";
  reason: string | null;
  error: string | null;
  delay_ms: number;
  refund: number;
  counted: number;
};

function keptColumns(outcome: Exclude<Outcome, { kind: "done" }>): Kept {
  const base = { reason: null, error: null, delay_ms: 0, refund: 0, counted: 0 };
  switch (outcome.kind) {
    case "release":
      return { ...base, status: "pending", refund: 1 };
    case "retry":
      return {
        ...base,
        status: "pending",
        reason: outcome.reason,
        error: outcome.error.slice(0, maxErrorLength),
        delay_ms: outcome.delayMs,
        refund: outcome.sent ? 0 : 1,
        counted: outcome.counted ? 1 : 0,
      };
    case "fail":
      return {
        ...base,
        status: "failed",
        reason: outcome.reason,
        error: outcome.error.slice(0, maxErrorLength),
        refund: outcome.sent ? 0 : 1,
        counted: outcome.sent ? 1 : 0,
      };
    default:
      return outcome satisfies never;
  }
}

/**
 * Writes the outcomes of a whole batch in one statement, fenced by the lease: done rows move to history, the others go back or fail.
 * Returns the ids that were settled; an id that is missing was not ours any more and was not touched. Throws what the driver throws.
 *
 * `again`: the same outcomes may have been settled before, by a statement whose answer was lost. What that one settled is returned as well. A done row keeps the id of its
 * claim for ever. One that was retried or failed does not, and may belong to another worker by now: for those we look at the lease row, which is deleted with the last event.
 * If it is already gone while the lease has not yet expired, nobody can have taken its rows, so our earlier attempt must have settled them.
 */
export async function settle(
  db: Db,
  queue: Queue,
  lease: Lease,
  outcomes: Iterable<readonly [bigint, Outcome]>,
  again = false,
): Promise<Set<bigint>> {
  const done = { all: [] as bigint[], noop: [] as bigint[], superseded: [] as bigint[], unsent: [] as bigint[] };
  const others: string[] = [];
  const otherIds: bigint[] = [];
  for (const [id, outcome] of outcomes) {
    if (outcome.kind === "done") {
      done.all.push(id);
      if (outcome.result !== "applied") done[outcome.result].push(id);
      if (!outcome.sent) done.unsent.push(id);
    } else {
      otherIds.push(id);
      // Written as text: an object with a number for each key is slow to make.
      others.push(`"${id}":${JSON.stringify(keptColumns(outcome))}`);
    }
  }
  const ids = (list: readonly bigint[]) => array("bigint", list);
  // The last two conditions of each half are the fence. Rows are found by `id = any(…)`: a join may have been planned when the table was empty, and read all that waits in it now.
  const fence = (list: readonly bigint[]) =>
    sql`e.id = any(${ids(list)}) and e.status = 'processing' and e.claim_batch_id = ${lease.claimBatchId}::uuid`;
  // Only what there is of a kind is asked for: an empty list costs each row as much as looking it up.
  const among = (list: readonly bigint[]) => (list.length === 0 ? sql`false` : sql`id = any(${ids(list)})`);
  const moved = sql`moved as (
      delete from ${live(queue)} e where ${fence(done.all)} returning ${kept}, attempts
    ), history as (
      insert into ${history(queue)} (${kept}, attempts, status, result, processed_at, updated_at)
      select ${kept}, attempts - (${among(done.unsent)})::int, 'done',
             case when ${among(done.noop)} then 'noop' when ${among(done.superseded)} then 'superseded' else 'applied' end, now(), now()
        from moved
    )`;
  // What is not settled now stays under lease.
  const whole = done.all.length + otherIds.length === lease.events.length;
  const ended = whole
    ? sql`, ended as (delete from outbox_leases where claim_batch_id = ${lease.claimBatchId}::uuid${again ? sql` returning 1` : sql``})`
    : sql``;
  const wasOver = again && whole ? sql`, not exists (select from ended) as was_over` : sql``;
  // Most batches are done as a whole, and need only the first half.
  const rest = sql`, kept as (
      update ${live(queue)} e
         set (status, error_reason, error, attempts, counted_attempts, next_retry_at) = (
               select k ->> 'status', coalesce(k ->> 'reason', e.error_reason), coalesce(k ->> 'error', e.error), e.attempts - (k ->> 'refund')::int,
                      e.counted_attempts + (k ->> 'counted')::int, case k ->> 'status' when 'pending' then now() + (k ->> 'delay_ms')::float8 * interval '1 millisecond' else 'infinity' end
                 from (select o.others -> e.id::text) as x(k)),
             owner = null, claim_batch_id = null, lease_until = null, processing_started_at = null, updated_at = now()
        from (select ${`{${others.join(",")}}`}::jsonb as others) o
       where ${fence(otherIds)}
      returning e.id
    )`;
  // One row: the driver's work goes by the row.
  const [row] = await db.execute<{ ids: string | null; was_over?: boolean }>(
    otherIds.length === 0
      ? sql`with ${moved}${ended} select string_agg(id::text, ',') as ids${wasOver} from moved`
      : sql`with ${moved}${rest}${ended} select string_agg(id::text, ',') as ids${wasOver} from (select id from moved union all select id from kept) s`,
  );
  const byUs = row?.was_over === true && performance.now() < lease.expiresAt;
  const settled = new Set(row?.ids?.split(",").map(BigInt));
  if (!again || settled.size === done.all.length + otherIds.length) return settled;
  // Not part of the statement above: that one may have waited for the end of the one before, and does not see what it wrote.
  const [before] = await db.execute<{ ids: string | null }>(sql`
    select string_agg(id::text, ',') as ids from ${history(queue)}
     where id = any(${ids(done.all)}) and claim_batch_id = ${lease.claimBatchId}::uuid`);
  return new Set([...settled, ...(before?.ids?.split(",").map(BigInt) ?? []), ...(byUs ? otherIds : [])]);
}

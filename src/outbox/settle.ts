import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import type { Lease, Outcome, Queue } from "./event.ts";

const maxErrorLength = 8000;

/** Every column that history keeps as it was. */
const kept = sql.raw(
  "id, entity_type, entity_id, op, event_version, created_at, owner, claim_batch_id, counted_attempts, traceparent, tracestate, " +
    "reclaim_count, last_reclaimed_at, last_reclaimed_by, last_reclaimed_from, last_reclaimed_reason, replay_count, last_replayed_at, last_replayed_by, last_replayed_reason",
);

type Kept = {
  id: string;
  status: "pending" | "failed";
  reason: string | null;
  error: string | null;
  delay_ms: number;
  refund: number;
  counted: number;
};

function keptRow(id: bigint, outcome: Exclude<Outcome, { kind: "done" }>): Kept {
  const base = { id: id.toString(), reason: null, error: null, delay_ms: 0, refund: 0, counted: 0 };
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
      };
    default:
      return outcome satisfies never;
  }
}

/**
 * Writes the outcomes of a whole batch in one statement, fenced by the lease: done rows move to history, the others go back or fail.
 * Returns the ids that were settled; an id that is missing was not ours any more and was not touched. Throws what the driver throws, with nothing settled.
 */
export async function settle(
  db: Db,
  queue: Queue,
  lease: Lease,
  outcomes: ReadonlyMap<bigint, Outcome>,
): Promise<Set<bigint>> {
  const done: { ids: bigint[]; results: string[]; refunds: number[] } = { ids: [], results: [], refunds: [] };
  const others: Kept[] = [];
  for (const [id, outcome] of outcomes) {
    if (outcome.kind !== "done") {
      others.push(keptRow(id, outcome));
      continue;
    }
    done.ids.push(id);
    done.results.push(outcome.result);
    done.refunds.push(outcome.sent ? 0 : 1);
  }
  const live = sql.identifier(`${queue.table}_live`);
  const ids = `{${done.ids.join(",")}}`;
  // The last two conditions of each half are the fence. An array, not a join: the planner cannot know how few rows it names.
  const rows = await db.execute<{ id: string }>(sql`
    with finished as materialized (
      select * from unnest(${ids}::bigint[], ${`{${done.results.join(",")}}`}::text[], ${`{${done.refunds.join(",")}}`}::int[]) as f(id, result, refund)
    ), moved as (
      delete from ${live} e
       where e.id = any(${ids}::bigint[]) and e.status = 'processing' and e.claim_batch_id = ${lease.claimBatchId}::uuid
      returning e.*
    ), history as (
      insert into ${sql.identifier(`${queue.table}_done`)} (${kept}, attempts, status, result, processed_at, updated_at)
      select ${kept}, attempts - f.refund, 'done', f.result, now(), now() from moved join finished f using (id)
    ), kept as (
      update ${live} e
         set status = k.status, error_reason = coalesce(k.reason, e.error_reason), error = coalesce(k.error, e.error), attempts = e.attempts - k.refund,
             counted_attempts = e.counted_attempts + k.counted, owner = null, claim_batch_id = null, lease_until = null, processing_started_at = null,
             next_retry_at = case k.status when 'pending' then now() + k.delay_ms * interval '1 millisecond' end, updated_at = now()
        from jsonb_to_recordset(${JSON.stringify(others)}::jsonb) as k(id bigint, status text, reason text, error text, delay_ms float8, refund int, counted int)
       where e.id = k.id and e.status = 'processing' and e.claim_batch_id = ${lease.claimBatchId}::uuid
      returning e.id
    )
    select id::text from moved union all select id::text from kept`);
  return new Set(rows.map((row) => BigInt(row.id)));
}

/** Makes rows that wait for one of these reasons due at once, the next ones first and at most `limit`: what they waited for is back. Returns how many. */
export async function hasten(db: Db, queue: Queue, reasons: readonly string[], limit?: number): Promise<number> {
  const live = sql.identifier(`${queue.table}_live`);
  const rows = await db.execute(sql`
    update ${live} set next_retry_at = now(), updated_at = now()
     where id in (
       select id from ${live}
        where status = 'pending' and next_retry_at > now() and error_reason = any(${`{${reasons.join(",")}}`}::text[])
        order by next_retry_at ${limit === undefined ? sql`` : sql`limit ${limit}`} for update skip locked)
    returning 1`);
  return rows.length;
}

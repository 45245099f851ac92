import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { oldestUnfinished } from "./backlog.ts";
import { history, type Queue } from "./queue.ts";

/** How far a prune has come: pass it to the next step. */
export type PruneStep = {
  readonly pruned: number;
  /** Where the next step goes on; null when no event beyond can be old enough. */
  readonly next: bigint | null;
};

/**
 * Looks at the `step` processed events after `from` in the order of their ids, which is that of their appends, and deletes those that were processed more than `hours` ago.
 * Nothing is processed before it is appended, so the walk ends at the first event that was appended since then: it meets no more than what it deletes and what waited long.
 */
export async function pruneDone(db: Db, queue: Queue, hours: number, step: number, from = 0n): Promise<PruneStep> {
  const since = sql`now() - ${hours}::float8 * interval '1 hour'`;
  const [row] = await db.execute<{ pruned: number; seen: number; last: string | null; old: boolean | null }>(sql`
    with seen as materialized (
      select ctid, id, created_at, processed_at from ${history(queue)} where id > ${from.toString()}::bigint order by id limit ${step}::int
    ), deleted as (
      delete from ${history(queue)} d where d.ctid = any(array(select ctid from seen where processed_at < ${since})) and d.processed_at < ${since}
      returning 1
    )
    select (select count(*)::int from deleted) as pruned, count(*)::int as seen, max(id)::text as last, bool_and(created_at < ${since}) as old from seen`);
  if (!row) throw new Error("a prune answered no row");
  return {
    pruned: row.pruned,
    next: row.seen === step && row.old === true && row.last !== null ? BigInt(row.last) : null,
  };
}

/** As `oldestUnfinished`: a tombstone older than every unfinished event can go, because none of them can still bring its entity back. */
export async function readOldestUnfinished(db: Db, queue: Queue): Promise<string | null> {
  const [row] = await db.execute<{ oldest: string | null }>(sql`select ${oldestUnfinished(queue)}::text as oldest`);
  return row?.oldest ?? null;
}

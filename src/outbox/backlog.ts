import { type SQL, sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { live, type Queue } from "./queue.ts";
import { lapsed } from "./reclaim.ts";

/** What waits in a queue now. Terminal rows are not lag: they have their own count. */
export type Backlog = {
  /** pending + processing */
  readonly lag: number;
  readonly processing: number;
  /** What reclaim would take. */
  readonly stuck: number;
  readonly failed: number;
  /** Seconds since the oldest unfinished event was appended; 0 when there is none. */
  readonly oldestAgeSeconds: number;
};

type Row = { lag: string; processing: string; stuck: string; failed: string; oldest: number };

/** When the oldest event that is neither done nor failed was appended; null when there is none. Each branch is answered by a range of the live partition's index (drizzle/0008). */
export function oldestUnfinished(queue: Queue): SQL {
  return sql`(select min(created_at) from (
    (select created_at from ${live(queue)} where next_retry_at is null order by next_retry_at, id + 0 limit 1)
    union all (select min(created_at) from ${live(queue)} where next_retry_at < 'infinity')) unfinished)`;
}

/** Costs O(live rows), whatever the history: every count is answered by a range of the live partition's index. */
export async function readBacklog(db: Db, queue: Queue, maxProcessingMs: number): Promise<Backlog> {
  const [row] = await db.execute<Row>(sql`
    select (select count(*) from ${live(queue)} where next_retry_at is null) + (select count(*) from ${live(queue)} where next_retry_at < 'infinity') as lag,
           (select count(*) from ${live(queue)} where next_retry_at = 'infinity') as failed,
           p.processing, p.stuck,
           coalesce(extract(epoch from now() - ${oldestUnfinished(queue)}), 0)::float8 as oldest
      from (select count(*) as processing,
                   count(*) filter (where ${lapsed(maxProcessingMs)}) as stuck
              from ${live(queue)}
             where id = any(array(select unnest(ids) from outbox_leases where projection = ${queue.projection})) and status = 'processing') p`);
  if (!row) throw new Error("the backlog query answered no row");
  return {
    lag: Number(row.lag),
    processing: Number(row.processing),
    stuck: Number(row.stuck),
    failed: Number(row.failed),
    oldestAgeSeconds: Math.max(0, row.oldest),
  };
}

import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { array, milliseconds } from "../db/sql.ts";
import { live, type Queue } from "./queue.ts";

/**
 * Makes rows that wait for one of these reasons due at once: what they waited for is back. The next ones first, at most `limit`, and none that has been touched in the last
 * `sinceMs`. Returns how many.
 */
export async function hasten(
  db: Db,
  queue: Queue,
  reasons: readonly string[],
  limit: number,
  sinceMs: number,
): Promise<number> {
  const [row] = await db.execute<{ count: number }>(sql`
    with waiting as materialized (
      select ctid from ${live(queue)}
       where status = 'pending' and next_retry_at > now() and next_retry_at < 'infinity' and error_reason = any(${array("text", reasons)})
         and updated_at <= now() - ${milliseconds(sinceMs)}
       order by next_retry_at, id + 0 limit ${limit} for update skip locked
    ), hastened as (
      update ${live(queue)} e set next_retry_at = now(), updated_at = now() where e.ctid = any(array(select ctid from waiting)) returning 1
    )
    select count(*)::int as count from hastened`);
  return row?.count ?? 0;
}

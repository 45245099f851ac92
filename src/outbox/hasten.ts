import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import type { Queue } from "./queue.ts";

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
  const live = sql.identifier(`${queue.table}_live`);
  const [row] = await db.execute<{ count: number }>(sql`
    with waiting as materialized (
      select ctid from ${live}
       where status = 'pending' and next_retry_at > now() and next_retry_at < 'infinity' and error_reason = any(${`{${reasons.join(",")}}`}::text[])
         and updated_at <= now() - ${sinceMs}::float8 * interval '1 millisecond'
       order by next_retry_at, id + 0 limit ${limit} for update skip locked
    ), hastened as (
      update ${live} e set next_retry_at = now(), updated_at = now() where e.ctid = any(array(select ctid from waiting)) returning 1
    )
    select count(*)::int as count from hastened`);
  return row?.count ?? 0;
}

import { sql } from "drizzle-orm";
import type { Tx } from "./client.ts";

/** Takes the lock of this name for the rest of the transaction; returns whether it could. Until then, others get false at once instead of waiting. */
export async function tryLock(tx: Tx, name: string): Promise<boolean> {
  const [lock] = await tx.execute<{ free: boolean }>(
    sql`select pg_try_advisory_xact_lock(hashtextextended(${name}, 0)) as free`,
  );
  return lock?.free === true;
}

import { type SQL, sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";

/** A table is gone through in pages, in the order of its `id`: the condition for those that come after the row `after` (null: from the first). */
export const past = (after: string | null): SQL => (after === null ? sql`true` : sql`id > ${after}::uuid`);

/** How many rows there are `from` a table, with a `where` if need be. */
export async function countRows(db: Db, from: SQL): Promise<number> {
  const [row] = await db.execute<{ n: string }>(sql`select count(*) as n from ${from}`);
  return Number(row?.n ?? 0);
}

import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";

/** Asks the database for an answer. Throws what the driver throws, and with code PING_TIMEOUT where none comes within `ms`, a wait for a free connection included. */
export async function ping(db: Db, ms: number): Promise<void> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    late.reject(Object.assign(new Error(`no answer within ${ms} ms`), { code: "PING_TIMEOUT" }));
  }, ms);
  try {
    await Promise.race([db.execute(sql`select 1`), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

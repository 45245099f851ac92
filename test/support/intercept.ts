import type { SQL } from "drizzle-orm";
import type { Db } from "../../src/db/client.ts";

/** `db`, but every statement outside a transaction goes through `send`, whose answer is its answer. */
export const intercept = (db: Db, send: (statement: SQL) => Promise<unknown>): Db =>
  Object.create(db, { execute: { value: send } });

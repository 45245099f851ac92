import { and, eq, inArray, isNull, type SQL } from "drizzle-orm";
import type { PgColumn, PgTable } from "drizzle-orm/pg-core";
import type { Db, Tx } from "../db/client.ts";
import { violatedConstraint } from "../db/failure.ts";
import { blocks, books, bookshelves, libraries, tags } from "../db/schema.ts";
import { type ProblemCode, WordloomError } from "../errors.ts";

/** What all verbs have in common: they find what is alive, and tell why there is nothing that they could write. */

const tables = { LIBRARY: libraries, BOOKSHELF: bookshelves, BOOK: books, BLOCK: blocks, TAG: tags };
type Entity = keyof typeof tables;
type Row<E extends Entity> = (typeof tables)[E]["$inferSelect"];

/** The versions over which a caller means to write; undefined: whichever there is. */
export type Expected = readonly bigint[] | undefined;

/** Finds the row with this id, if it is alive and of an expected version. */
export function living(entity: Entity, id: string, expected?: Expected): SQL | undefined {
  const table = tables[entity];
  return and(eq(table.id, id), isNull(table.softDeletedAt), expected && inArray(table.version, [...expected]));
}

/** Why a write found no such row: it is of another version, it was deleted before, or there never was one. What is deleted cannot be told from what never was but by a delete. */
export async function unwritable(
  tx: Tx,
  verb: "change" | "delete",
  entity: Entity,
  id: string,
): Promise<WordloomError> {
  const table = tables[entity];
  const [row] = await tx.select({ deletedAt: table.softDeletedAt }).from(table).where(eq(table.id, id));
  if (row?.deletedAt === null) return new WordloomError("VERSION_MISMATCH");
  return new WordloomError(row && verb === "delete" ? `${entity}_ALREADY_DELETED` : `${entity}_NOT_FOUND`);
}

/** Waits for `work`; a violation of the unique `constraint` becomes `code`. The database decides, so that of many equal writes at once one wins. */
export async function unlessTaken<T>(constraint: string, code: ProblemCode, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw violatedConstraint(error) === constraint ? new WordloomError(code, undefined, { cause: error }) : error;
  }
}

/** The row with this id. Throws …_NOT_FOUND, also for a deleted one. */
export async function readLiving<E extends Entity>(db: Db, entity: E, id: string): Promise<Row<E>> {
  const [row] = await db.select().from<PgTable>(tables[entity]).where(living(entity, id));
  if (!row) throw new WordloomError(`${entity}_NOT_FOUND`);
  return row as Row<E>;
}

/** A part of a list: at most `limit` rows, from the `offset`th on. */
export type Page = { readonly limit: number; readonly offset: number };

/** A page of a list, and how many there are in all: these two may be a moment apart. */
export type Listed<T> = { readonly total: number; readonly items: readonly T[] };

/** A page of what is alive and fits `where`. */
export async function listLiving<E extends Entity>(
  db: Db,
  entity: E,
  where: SQL | undefined,
  order: readonly PgColumn[],
  { limit, offset }: Page,
): Promise<Listed<Row<E>>> {
  const table = tables[entity];
  const alive = and(isNull(table.softDeletedAt), where);
  const [total, rows] = await Promise.all([
    db.$count(table, alive),
    db
      .select()
      .from<PgTable>(table)
      .where(alive)
      .orderBy(...order)
      .limit(limit)
      .offset(offset),
  ]);
  return { total, items: rows as Row<E>[] };
}

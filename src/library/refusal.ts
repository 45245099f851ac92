import { eq } from "drizzle-orm";
import type { Tx } from "../db/client.ts";
import { violatedConstraint } from "../db/failure.ts";
import type { blocks, books, bookshelves, libraries, tags } from "../db/schema.ts";
import { type ProblemCode, WordloomError } from "../errors.ts";

type Entity = "LIBRARY" | "BOOKSHELF" | "BOOK" | "BLOCK" | "TAG";
type EntityTable = typeof libraries | typeof bookshelves | typeof books | typeof blocks | typeof tags;

/** Why a delete found no living row: it was deleted before, or there never was one. */
export async function undeletable(tx: Tx, entity: Entity, table: EntityTable, id: string): Promise<WordloomError> {
  const [row] = await tx.select({ id: table.id }).from(table).where(eq(table.id, id));
  return new WordloomError(row ? `${entity}_ALREADY_DELETED` : `${entity}_NOT_FOUND`);
}

/** Waits for `work`; a violation of the unique `constraint` becomes `code`. The database decides, so that of many equal writes at once one wins. */
export async function unlessTaken<T>(constraint: string, code: ProblemCode, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw violatedConstraint(error) === constraint ? new WordloomError(code, undefined, { cause: error }) : error;
  }
}

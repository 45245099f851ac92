import { and, eq, isNull, sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { bookshelves, libraries } from "../db/schema.ts";
import { WordloomError } from "../errors.ts";
import { deleteBelow } from "./cascade.ts";
import type { Change, Unit } from "./change.ts";
import type { EventType } from "./event-types.ts";
import { undeletable, unlessTaken } from "./refusal.ts";

export type Bookshelf = typeof bookshelves.$inferSelect;

export type BookshelfFields = { readonly name: string; readonly description?: string | null };

const changed = (shelf: Bookshelf, eventType: EventType, payload: Change["payload"]): Change => ({
  entityType: "bookshelf",
  entityId: shelf.id,
  version: shelf.version,
  op: shelf.softDeletedAt === null ? "upsert" : "delete",
  eventType,
  libraryId: shelf.libraryId,
  bookId: null,
  title: shelf.name,
  text: shelf.description ?? "",
  payload,
});

const taken = <T>(work: Promise<T>) => unlessTaken("uq_library_bookshelf_name", "BOOKSHELF_ALREADY_EXISTS", work);

/** Throws LIBRARY_NOT_FOUND, BOOKSHELF_ALREADY_EXISTS. */
export async function createBookshelf(
  unit: Unit,
  { libraryId, ...fields }: BookshelfFields & { readonly libraryId: string },
): Promise<Bookshelf> {
  // Held until the commit: the library cannot be deleted between this look and the new row.
  const [library] = await unit.tx
    .select({ id: libraries.id })
    .from(libraries)
    .where(and(eq(libraries.id, libraryId), isNull(libraries.softDeletedAt)))
    .for("share");
  if (!library) throw new WordloomError("LIBRARY_NOT_FOUND");
  const [shelf] = await taken(
    unit.tx
      .insert(bookshelves)
      .values({ id: Bun.randomUUIDv7(), libraryId, ...fields })
      .returning()
      .execute(),
  );
  if (!shelf) throw new Error("insert returned no row");
  await unit.record([changed(shelf, "bookshelf_created", {})]);
  return shelf;
}

/** Changes the fields that are given. Throws BOOKSHELF_NOT_FOUND, BOOKSHELF_ALREADY_EXISTS. */
export async function changeBookshelf(unit: Unit, id: string, patch: Partial<BookshelfFields>): Promise<Bookshelf> {
  const [shelf] = await taken(
    unit.tx
      .update(bookshelves)
      .set({ ...patch, version: sql`${bookshelves.version} + 1`, updatedAt: sql`now()` })
      .where(and(eq(bookshelves.id, id), isNull(bookshelves.softDeletedAt)))
      .returning()
      .execute(),
  );
  if (!shelf) throw new WordloomError("BOOKSHELF_NOT_FOUND");
  const eventType = patch.name === undefined ? "bookshelf_updated" : "bookshelf_renamed";
  await unit.record([changed(shelf, eventType, { fields: Object.keys(patch) })]);
  return shelf;
}

/** Soft-deletes a bookshelf with all that is on it. Throws BOOKSHELF_NOT_FOUND, BOOKSHELF_ALREADY_DELETED. */
export async function deleteBookshelf(unit: Unit, id: string): Promise<void> {
  const [shelf] = await unit.tx
    .update(bookshelves)
    .set({
      softDeletedAt: sql`now()`,
      status: "deleted",
      version: sql`${bookshelves.version} + 1`,
      updatedAt: sql`now()`,
    })
    .where(and(eq(bookshelves.id, id), isNull(bookshelves.softDeletedAt)))
    .returning();
  if (!shelf) throw await undeletable(unit.tx, "BOOKSHELF", bookshelves, id);
  await unit.record([changed(shelf, "bookshelf_deleted", {})]);
  await deleteBelow(unit, "bookshelf", id);
}

/** Throws BOOKSHELF_NOT_FOUND, also for a deleted one. */
export async function readBookshelf(db: Db, id: string): Promise<Bookshelf> {
  const [shelf] = await db
    .select()
    .from(bookshelves)
    .where(and(eq(bookshelves.id, id), isNull(bookshelves.softDeletedAt)));
  if (!shelf) throw new WordloomError("BOOKSHELF_NOT_FOUND");
  return shelf;
}

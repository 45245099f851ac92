import { and, eq, isNull, sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { bookshelves, libraries } from "../db/schema.ts";
import { WordloomError } from "../errors.ts";
import type { EventType } from "../events.ts";
import { deleteBelow } from "./cascade.ts";
import type { Change, Unit } from "./change.ts";
import {
  type Expected,
  type Listed,
  listLiving,
  living,
  type Page,
  readLiving,
  unlessTaken,
  unwritable,
} from "./living.ts";

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

/** Changes the fields that are given. Throws BOOKSHELF_NOT_FOUND, BOOKSHELF_ALREADY_EXISTS, VERSION_MISMATCH. */
export async function changeBookshelf(
  unit: Unit,
  id: string,
  patch: Partial<BookshelfFields>,
  expected?: Expected,
): Promise<Bookshelf> {
  const [shelf] = await taken(
    unit.tx
      .update(bookshelves)
      .set({ ...patch, version: sql`${bookshelves.version} + 1`, updatedAt: sql`now()` })
      .where(living("BOOKSHELF", id, expected))
      .returning()
      .execute(),
  );
  if (!shelf) throw await unwritable(unit.tx, "change", "BOOKSHELF", id);
  const eventType = patch.name === undefined ? "bookshelf_updated" : "bookshelf_renamed";
  await unit.record([changed(shelf, eventType, { fields: Object.keys(patch) })]);
  return shelf;
}

/** Soft-deletes a bookshelf with all that is on it. Throws BOOKSHELF_NOT_FOUND, BOOKSHELF_ALREADY_DELETED, VERSION_MISMATCH. */
export async function deleteBookshelf(unit: Unit, id: string, expected?: Expected): Promise<void> {
  const [shelf] = await unit.tx
    .update(bookshelves)
    .set({
      softDeletedAt: sql`now()`,
      status: "deleted",
      version: sql`${bookshelves.version} + 1`,
      updatedAt: sql`now()`,
    })
    .where(living("BOOKSHELF", id, expected))
    .returning();
  if (!shelf) throw await unwritable(unit.tx, "delete", "BOOKSHELF", id);
  await unit.record([changed(shelf, "bookshelf_deleted", {})]);
  await deleteBelow(unit, "bookshelf", id);
}

/** Throws BOOKSHELF_NOT_FOUND, also for a deleted one. */
export const readBookshelf = (db: Db, id: string): Promise<Bookshelf> => readLiving(db, "BOOKSHELF", id);

/** Those of one library, by name. Throws LIBRARY_NOT_FOUND. */
export async function listBookshelves(db: Db, libraryId: string, page: Page): Promise<Listed<Bookshelf>> {
  await readLiving(db, "LIBRARY", libraryId);
  return await listLiving(db, "BOOKSHELF", eq(bookshelves.libraryId, libraryId), [bookshelves.name], page);
}

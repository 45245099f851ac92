import { eq, sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { books, bookshelves } from "../db/schema.ts";
import { WordloomError } from "../errors.ts";
import type { EventType } from "../events.ts";
import { deleteBelow } from "./cascade.ts";
import type { Change, Unit } from "./change.ts";
import { type Expected, type Listed, listLiving, living, type Page, readLiving, unwritable } from "./living.ts";

export type Book = typeof books.$inferSelect;

export type BookFields = {
  readonly title: string;
  readonly summary?: string | null;
  readonly coverIcon?: string | null;
  /** Where an import read the book; alive at most once in a library. */
  readonly sourcePath?: string | null;
};

const changed = (book: Book, eventType: EventType, payload: Change["payload"]): Change => ({
  entityType: "book",
  entityId: book.id,
  version: book.version,
  op: book.softDeletedAt === null ? "upsert" : "delete",
  eventType,
  libraryId: book.libraryId,
  bookId: book.id,
  title: book.title,
  text: book.summary ?? "",
  payload,
});

/** The library of a bookshelf. Held until the commit: it cannot be deleted between this look and what is put on it. Throws BOOKSHELF_NOT_FOUND. */
async function holdShelf(unit: Unit, bookshelfId: string): Promise<string> {
  const [shelf] = await unit.tx
    .select({ libraryId: bookshelves.libraryId })
    .from(bookshelves)
    .where(living("BOOKSHELF", bookshelfId))
    .for("share");
  if (!shelf) throw new WordloomError("BOOKSHELF_NOT_FOUND");
  return shelf.libraryId;
}

/** Throws BOOKSHELF_NOT_FOUND: none, deleted, or in another library than `libraryId`. */
export async function createBook(
  unit: Unit,
  { bookshelfId, libraryId, ...fields }: BookFields & { readonly bookshelfId: string; readonly libraryId?: string },
): Promise<Book> {
  const heldIn = await holdShelf(unit, bookshelfId);
  if (libraryId !== undefined && libraryId.toLowerCase() !== heldIn) throw new WordloomError("BOOKSHELF_NOT_FOUND");
  const [book] = await unit.tx
    .insert(books)
    .values({ id: Bun.randomUUIDv7(), bookshelfId, libraryId: heldIn, ...fields })
    .returning();
  if (!book) throw new Error("insert returned no row");
  await unit.record([changed(book, "book_created", {})]);
  return book;
}

/** Changes the fields that are given; `bookshelfId` moves the book within its library. Throws BOOK_NOT_FOUND, VERSION_MISMATCH, BOOKSHELF_NOT_FOUND, INVALID_MOVE. */
export async function changeBook(
  unit: Unit,
  id: string,
  patch: Partial<BookFields & { readonly bookshelfId: string }>,
  expected?: Expected,
): Promise<Book> {
  const movedIn = patch.bookshelfId === undefined ? undefined : await holdShelf(unit, patch.bookshelfId);
  const [book] = await unit.tx
    .update(books)
    .set({ ...patch, version: sql`${books.version} + 1`, updatedAt: sql`now()` })
    .where(living("BOOK", id, expected))
    .returning();
  if (!book) throw await unwritable(unit.tx, "change", "BOOK", id);
  if (movedIn !== undefined && movedIn !== book.libraryId) throw new WordloomError("INVALID_MOVE");
  const eventType = movedIn !== undefined ? "book_moved" : patch.title === undefined ? "book_updated" : "book_renamed";
  await unit.record([changed(book, eventType, { fields: Object.keys(patch) })]);
  return book;
}

/** Soft-deletes a book with its blocks. Throws BOOK_NOT_FOUND, BOOK_ALREADY_DELETED, VERSION_MISMATCH. */
export async function deleteBook(unit: Unit, id: string, expected?: Expected): Promise<void> {
  const [book] = await unit.tx
    .update(books)
    .set({ softDeletedAt: sql`now()`, status: "deleted", version: sql`${books.version} + 1`, updatedAt: sql`now()` })
    .where(living("BOOK", id, expected))
    .returning();
  if (!book) throw await unwritable(unit.tx, "delete", "BOOK", id);
  await unit.record([changed(book, "book_deleted", {})]);
  await deleteBelow(unit, "book", id);
}

/** Throws BOOK_NOT_FOUND, also for a deleted one. */
export const readBook = (db: Db, id: string): Promise<Book> => readLiving(db, "BOOK", id);

/** Those on one bookshelf, in the order in which they came: the chapters of an import as its files are sorted. Throws BOOKSHELF_NOT_FOUND. */
export async function listBooks(db: Db, bookshelfId: string, page: Page): Promise<Listed<Book>> {
  await readLiving(db, "BOOKSHELF", bookshelfId);
  return await listLiving(db, "BOOK", eq(books.bookshelfId, bookshelfId), [books.createdAt, books.id], page);
}

import { and, desc, eq } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { books, chronicleEntries } from "../db/schema.ts";
import { WordloomError } from "../errors.ts";
import type { EventType } from "../events.ts";
import type { Listed, Page } from "./living.ts";

/** What happened, as the chronicle's projection holds it: a moment after it happened. */
export type ChronicleEntry = typeof chronicleEntries.$inferSelect;

/** What happened to a book and its blocks, the last first; also of a deleted book, as nothing that was written is in it. Throws BOOK_NOT_FOUND. */
export async function listBookEntries(
  db: Db,
  bookId: string,
  eventType: EventType | undefined,
  { limit, offset }: Page,
): Promise<Listed<ChronicleEntry>> {
  const [book] = await db.select({ id: books.id }).from(books).where(eq(books.id, bookId));
  if (!book) throw new WordloomError("BOOK_NOT_FOUND");
  const of = and(
    eq(chronicleEntries.bookId, bookId),
    eventType === undefined ? undefined : eq(chronicleEntries.eventType, eventType),
  );
  const [total, items] = await Promise.all([
    db.$count(chronicleEntries, of),
    db
      .select()
      .from(chronicleEntries)
      .where(of)
      .orderBy(desc(chronicleEntries.occurredAt), desc(chronicleEntries.id))
      .limit(limit)
      .offset(offset),
  ]);
  return { total, items };
}

import type { Elysia } from "elysia";
import { type Book, changeBook, createBook, deleteBook, listBooks, readBook } from "../library/books.ts";
import { type Desk, jsonBody, writeFor } from "./desk.ts";
import { answer, answerPage, created, entityRoutes, expectedVersions, idParams, pageFields, pageOf } from "./entity.ts";
import { fields, line, nullable, optional, prose, uuid } from "./schema.ts";

const path = "/api/v1/books";

const asked = { title: line(1, 255), summary: nullable(prose()), cover_icon: nullable(line(1, 64)) };
const creation = fields({ bookshelf_id: uuid(), library_id: optional(uuid()), ...asked });
const patch = fields({ ...asked, title: optional(asked.title), bookshelf_id: optional(uuid()) }, { minProperties: 1 });
const listing = fields({ bookshelf_id: uuid(), ...pageFields });

const shown = (book: Book) => ({
  id: book.id,
  library_id: book.libraryId,
  bookshelf_id: book.bookshelfId,
  title: book.title,
  summary: book.summary,
  status: book.status,
  maturity: book.maturity,
  maturity_score: book.maturityScore,
  legacy_flag: book.legacyFlag,
  manual_maturity_override: book.manualMaturityOverride,
  manual_maturity_reason: book.manualMaturityReason,
  is_pinned: book.isPinned,
  due_at: book.dueAt,
  cover_icon: book.coverIcon,
  cover_media_id: book.coverMediaId,
  last_visited_at: book.lastVisitedAt,
  version: book.version.toString(),
  created_at: book.createdAt,
  updated_at: book.updatedAt,
  soft_deleted_at: book.softDeletedAt,
});

export function bookRoutes(app: Elysia, desk: Desk): void {
  const parse = jsonBody(desk);
  app
    .post(
      path,
      async ({ body: { bookshelf_id, library_id, cover_icon, ...rest }, request }) => {
        const book = {
          ...rest,
          bookshelfId: bookshelf_id,
          coverIcon: cover_icon ?? null,
          ...(library_id === undefined ? {} : { libraryId: library_id }),
        };
        return created(path, shown(await writeFor(desk, request, (unit) => createBook(unit, book))));
      },
      { parse, body: creation, detail: { summary: "Creates a book on a bookshelf." } },
    )
    .get(
      path,
      async ({ query }) => {
        const page = pageOf(query);
        return answerPage(await listBooks(desk.db, query.bookshelf_id, page), page, shown);
      },
      { query: listing, detail: { summary: "Lists the books on a bookshelf, in the order in which they were added." } },
    )
    .patch(
      `${path}/:id`,
      async ({ body: { cover_icon, bookshelf_id, ...rest }, params, request }) => {
        const change = {
          ...rest,
          ...(cover_icon === undefined ? {} : { coverIcon: cover_icon }),
          ...(bookshelf_id === undefined ? {} : { bookshelfId: bookshelf_id }),
        };
        const expected = expectedVersions(request);
        return answer(shown(await writeFor(desk, request, (unit) => changeBook(unit, params.id, change, expected))));
      },
      {
        parse,
        body: patch,
        params: idParams,
        detail: { summary: "Changes the given fields; `bookshelf_id` moves the book within its library." },
      },
    );
  entityRoutes(app, desk, path, shown, readBook, deleteBook, "Deletes the book with its blocks.");
}

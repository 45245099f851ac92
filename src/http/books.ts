import type { Elysia } from "elysia";
import { type Book, createBook, deleteBook, readBook } from "../library/books.ts";
import { created, type Desk, jsonBody, noContent, writeFor } from "./desk.ts";
import { fields, idParams, line, nullable, optional, prose, uuid } from "./schema.ts";

const path = "/api/v1/books";

const creation = fields({
  bookshelf_id: uuid(),
  library_id: optional(uuid()),
  title: line(1, 255),
  summary: nullable(prose()),
  cover_icon: nullable(line(1, 64)),
});

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
  app
    .post(
      path,
      async ({ body: { bookshelf_id, library_id, cover_icon, ...rest }, request }) => {
        const asked = {
          ...rest,
          bookshelfId: bookshelf_id,
          coverIcon: cover_icon ?? null,
          ...(library_id === undefined ? {} : { libraryId: library_id }),
        };
        return created(path, shown(await writeFor(desk, request, (unit) => createBook(unit, asked))));
      },
      { parse: jsonBody(desk), body: creation },
    )
    .get(`${path}/:id`, async ({ params }) => shown(await readBook(desk.db, params.id)), { params: idParams })
    .delete(
      `${path}/:id`,
      async ({ params, request }) => {
        await writeFor(desk, request, (unit) => deleteBook(unit, params.id));
        return noContent();
      },
      { params: idParams },
    );
}

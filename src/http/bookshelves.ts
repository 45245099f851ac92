import type { Elysia } from "elysia";
import {
  type Bookshelf,
  changeBookshelf,
  createBookshelf,
  deleteBookshelf,
  listBookshelves,
  readBookshelf,
} from "../library/bookshelves.ts";
import { type Desk, jsonBody, writeFor } from "./desk.ts";
import { answer, answerPage, created, entityRoutes, expectedVersions, idParams, pageFields, pageOf } from "./entity.ts";
import { fields, line, nullable, optional, prose, uuid } from "./schema.ts";

const path = "/api/v1/bookshelves";

const asked = { name: line(1, 255), description: nullable(prose(1000)) };
const creation = fields({ library_id: uuid(), ...asked });
const patch = fields({ ...asked, name: optional(asked.name) }, { minProperties: 1 });
const listing = fields({ library_id: uuid(), ...pageFields });

const shown = (shelf: Bookshelf) => ({
  id: shelf.id,
  library_id: shelf.libraryId,
  name: shelf.name,
  description: shelf.description,
  is_pinned: shelf.isPinned,
  pinned_at: shelf.pinnedAt,
  is_favorite: shelf.isFavorite,
  is_basement: shelf.isBasement,
  status: shelf.status,
  version: shelf.version.toString(),
  created_at: shelf.createdAt,
  updated_at: shelf.updatedAt,
});

export function bookshelfRoutes(app: Elysia, desk: Desk): void {
  const parse = jsonBody(desk);
  app
    .post(
      path,
      async ({ body: { library_id, ...rest }, request }) => {
        const shelf = { ...rest, libraryId: library_id };
        return created(path, shown(await writeFor(desk, request, (unit) => createBookshelf(unit, shelf))));
      },
      { parse, body: creation, detail: { summary: "Creates a bookshelf in a library." } },
    )
    .get(
      path,
      async ({ query }) => {
        const page = pageOf(query);
        return answerPage(await listBookshelves(desk.db, query.library_id, page), page, shown);
      },
      { query: listing, detail: { summary: "Lists the bookshelves of a library, by name." } },
    )
    .patch(
      `${path}/:id`,
      async ({ body, params, request }) => {
        const expected = expectedVersions(request);
        return answer(shown(await writeFor(desk, request, (unit) => changeBookshelf(unit, params.id, body, expected))));
      },
      { parse, body: patch, params: idParams, detail: { summary: "Changes the given fields." } },
    );
  entityRoutes(app, desk, path, shown, readBookshelf, deleteBookshelf, "Deletes the bookshelf with its books.");
}

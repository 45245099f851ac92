import type { Elysia } from "elysia";
import { type Bookshelf, createBookshelf, deleteBookshelf, readBookshelf } from "../library/bookshelves.ts";
import { created, type Desk, jsonBody, noContent, writeFor } from "./desk.ts";
import { fields, idParams, line, nullable, prose, uuid } from "./schema.ts";

const path = "/api/v1/bookshelves";

const creation = fields({ library_id: uuid(), name: line(1, 255), description: nullable(prose(1000)) });

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
  app
    .post(
      path,
      async ({ body: { library_id, ...rest }, request }) => {
        const asked = { ...rest, libraryId: library_id };
        return created(path, shown(await writeFor(desk, request, (unit) => createBookshelf(unit, asked))));
      },
      { parse: jsonBody(desk), body: creation },
    )
    .get(`${path}/:id`, async ({ params }) => shown(await readBookshelf(desk.db, params.id)), { params: idParams })
    .delete(
      `${path}/:id`,
      async ({ params, request }) => {
        await writeFor(desk, request, (unit) => deleteBookshelf(unit, params.id));
        return noContent();
      },
      { params: idParams },
    );
}

import type { Elysia } from "elysia";
import { createLibrary, deleteLibrary, type Library, readLibrary } from "../library/libraries.ts";
import { created, type Desk, jsonBody, noContent, writeFor } from "./desk.ts";
import { fields, idParams, line, nullable, prose } from "./schema.ts";

const path = "/api/v1/libraries";

const creation = fields({ name: line(1, 255), description: nullable(prose(500)), theme_color: nullable(line(1, 16)) });

const shown = (library: Library) => ({
  id: library.id,
  user_id: library.userId,
  name: library.name,
  description: library.description,
  cover_media_id: library.coverMediaId,
  theme_color: library.themeColor,
  pinned: library.pinned,
  pinned_order: library.pinnedOrder,
  archived_at: library.archivedAt,
  last_activity_at: library.lastActivityAt,
  views_count: library.viewsCount,
  last_viewed_at: library.lastViewedAt,
  basement_bookshelf_id: library.basementBookshelfId,
  version: library.version.toString(),
  created_at: library.createdAt,
  updated_at: library.updatedAt,
});

export function libraryRoutes(app: Elysia, desk: Desk): void {
  app
    .post(
      path,
      async ({ body: { theme_color, ...rest }, request }) => {
        const asked = { ...rest, themeColor: theme_color ?? null };
        return created(path, shown(await writeFor(desk, request, (unit) => createLibrary(unit, asked))));
      },
      { parse: jsonBody(desk), body: creation },
    )
    .get(`${path}/:id`, async ({ params }) => shown(await readLibrary(desk.db, params.id)), { params: idParams })
    .delete(
      `${path}/:id`,
      async ({ params, request }) => {
        await writeFor(desk, request, (unit) => deleteLibrary(unit, params.id));
        return noContent();
      },
      { params: idParams },
    );
}

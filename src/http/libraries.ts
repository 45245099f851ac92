import type { Elysia } from "elysia";
import {
  changeLibrary,
  createLibrary,
  deleteLibrary,
  type Library,
  listLibraries,
  readLibrary,
} from "../library/libraries.ts";
import { type Desk, jsonBody, writeFor } from "./desk.ts";
import { answer, answerPage, created, entityRoutes, expectedVersions, idParams, pageFields, pageOf } from "./entity.ts";
import { fields, line, nullable, optional, prose } from "./schema.ts";

const path = "/api/v1/libraries";

const asked = { name: line(1, 255), description: nullable(prose(500)), theme_color: nullable(line(1, 16)) };
const creation = fields(asked);
const patch = fields({ ...asked, name: optional(asked.name) }, { minProperties: 1 });
const listing = fields(pageFields);

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
  const parse = jsonBody(desk);
  app
    .post(
      path,
      async ({ body: { theme_color, ...rest }, request }) => {
        const library = { ...rest, themeColor: theme_color ?? null };
        return created(path, shown(await writeFor(desk, request, (unit) => createLibrary(unit, library))));
      },
      { parse, body: creation, detail: { summary: "Creates a library." } },
    )
    .get(
      path,
      async ({ query }) => {
        const page = pageOf(query);
        return answerPage(await listLibraries(desk.db, desk.config.DEV_USER_ID, page), page, shown);
      },
      { query: listing, detail: { summary: "Lists the libraries, by name." } },
    )
    .patch(
      `${path}/:id`,
      async ({ body: { theme_color, ...rest }, params, request }) => {
        const change = { ...rest, ...(theme_color === undefined ? {} : { themeColor: theme_color }) };
        const expected = expectedVersions(request);
        return answer(shown(await writeFor(desk, request, (unit) => changeLibrary(unit, params.id, change, expected))));
      },
      { parse, body: patch, params: idParams, detail: { summary: "Changes the given fields." } },
    );
  entityRoutes(app, desk, path, shown, readLibrary, deleteLibrary, "Deletes the library with everything in it.");
}

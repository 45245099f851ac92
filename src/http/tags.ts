import type { Elysia } from "elysia";
import { changeTag, createTags, deleteTag, listTags, type NewTag, readTag, type Tag } from "../library/tags.ts";
import { type Desk, jsonBody, writeFor, writeTogetherFor } from "./desk.ts";
import { answer, answerPage, created, entityRoutes, expectedVersions, idParams, pageFields, pageOf } from "./entity.ts";
import { color, fields, line, nullable, optional, prose, uuid } from "./schema.ts";

const path = "/api/v1/tags";

const asked = {
  name: line(1, 50),
  color: optional(color()),
  icon: nullable(line(1, 50)),
  description: nullable(prose(500)),
};
const creation = fields(asked);
const patch = fields({ ...asked, name: optional(asked.name), parent_tag_id: nullable(uuid()) }, { minProperties: 1 });
const listing = fields(pageFields);

const shown = (tag: Tag) => ({
  id: tag.id,
  name: tag.name,
  color: tag.color,
  icon: tag.iconEmoji,
  description: tag.description,
  level: tag.level,
  parent_tag_id: tag.parentTagId,
  usage_count: tag.usageCount,
  version: tag.version.toString(),
  created_at: tag.createdAt,
  updated_at: tag.updatedAt,
  deleted_at: tag.softDeletedAt,
});

export function tagRoutes(app: Elysia, desk: Desk): void {
  const parse = jsonBody(desk);
  const create = writeTogetherFor<NewTag, Tag>(desk, "create tag", createTags);
  app
    .post(path, async ({ body, request }) => created(path, shown(await create(request, body))), {
      parse,
      body: creation,
      detail: { summary: "Creates a tag at the top level." },
    })
    .get(
      path,
      async ({ query }) => {
        const page = pageOf(query);
        return answerPage(await listTags(desk.db, desk.config.DEV_USER_ID, page), page, shown);
      },
      { query: listing, detail: { summary: "Lists the tags, by name." } },
    )
    .patch(
      `${path}/:id`,
      async ({ body: { parent_tag_id, ...body }, params, request }) => {
        const move = parent_tag_id === undefined ? {} : { parentTagId: parent_tag_id?.toLowerCase() ?? null };
        const change = { ...body, ...move };
        const expected = expectedVersions(request);
        return answer(shown(await writeFor(desk, request, (unit) => changeTag(unit, params.id, change, expected))));
      },
      {
        parse,
        body: patch,
        params: idParams,
        detail: {
          summary:
            "Changes the given fields; `parent_tag_id` moves the tag, null moves it to the top level. Tags nest up to three levels deep.",
        },
      },
    );
  entityRoutes(
    app,
    desk,
    path,
    shown,
    readTag,
    deleteTag,
    "Deletes the tag; its direct children move to the top level.",
  );
}

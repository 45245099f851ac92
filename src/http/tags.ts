import type { Elysia } from "elysia";
import { changeTag, createTags, deleteTag, type NewTag, readTag, type Tag } from "../library/tags.ts";
import { created, type Desk, jsonBody, noContent, writeFor, writeTogetherFor } from "./desk.ts";
import { color, fields, idParams, line, nullable, optional, prose, uuid } from "./schema.ts";

const path = "/api/v1/tags";

const asked = {
  name: line(1, 50),
  color: optional(color()),
  icon: nullable(line(1, 50)),
  description: nullable(prose(500)),
};
const creation = fields(asked);
const patch = fields({ ...asked, name: optional(asked.name), parent_tag_id: nullable(uuid()) }, { minProperties: 1 });

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
  deleted_at: tag.deletedAt,
});

export function tagRoutes(app: Elysia, desk: Desk): void {
  const parse = jsonBody(desk);
  const create = writeTogetherFor<NewTag, Tag>(desk, "create tag", createTags);
  app
    .post(path, async ({ body, request }) => created(path, shown(await create(request, body))), {
      parse,
      body: creation,
    })
    .get(`${path}/:id`, async ({ params }) => shown(await readTag(desk.db, params.id)), { params: idParams })
    .patch(
      `${path}/:id`,
      async ({ body: { parent_tag_id, ...body }, params, request }) => {
        const move = parent_tag_id === undefined ? {} : { parentTagId: parent_tag_id?.toLowerCase() ?? null };
        return shown(await writeFor(desk, request, (unit) => changeTag(unit, params.id, { ...body, ...move })));
      },
      { parse, body: patch, params: idParams },
    )
    .delete(
      `${path}/:id`,
      async ({ params, request }) => {
        await writeFor(desk, request, (unit) => deleteTag(unit, params.id));
        return noContent();
      },
      { params: idParams },
    );
}

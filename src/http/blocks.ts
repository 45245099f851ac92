import { Type } from "@sinclair/typebox";
import type { Elysia } from "elysia";
import { blockTypes } from "../db/schema.ts";
import { type Block, changeBlock, createBlocks, deleteBlock, listBlocks, readBlock } from "../library/blocks.ts";
import { type Desk, jsonBody, writeFor } from "./desk.ts";
import { answer, answerPage, created, entityRoutes, expectedVersions, idParams, pageFields, pageOf } from "./entity.ts";
import { fields, nullable, oneOf, optional, prose, uuid } from "./schema.ts";

const path = "/api/v1/blocks";

const asked = {
  block_type: oneOf(blockTypes),
  content: prose(),
  heading_level: nullable(Type.Integer({ minimum: 1, maximum: 6, description: "a heading's level from 1 to 6" })),
  metadata: nullable(Type.Object({}, { additionalProperties: true, description: "a JSON object" })),
};
/** Null: at the start. */
const place = { position_after_id: nullable(uuid()) };
const creation = fields({ book_id: uuid(), ...asked, ...place });
const patch = fields(
  { ...asked, ...place, block_type: optional(asked.block_type), content: optional(asked.content) },
  { minProperties: 1 },
);
const listing = fields({ book_id: uuid(), ...pageFields });

const shown = (block: Block) => ({
  id: block.id,
  book_id: block.bookId,
  block_type: block.type,
  content: block.content,
  heading_level: block.headingLevel,
  metadata: block.meta === null ? null : (JSON.parse(block.meta) as unknown),
  order: block.order,
  version: block.version.toString(),
  created_at: block.createdAt,
  updated_at: block.updatedAt,
  soft_deleted_at: block.softDeletedAt,
});

const metaOf = (metadata: object | null): string | null => (metadata === null ? null : JSON.stringify(metadata));

export function blockRoutes(app: Elysia, desk: Desk): void {
  const parse = jsonBody(desk);
  app
    .post(
      path,
      async ({ body, request }) => {
        const asked = {
          type: body.block_type,
          content: body.content,
          headingLevel: body.heading_level ?? null,
          meta: metaOf(body.metadata ?? null),
        };
        const [block] = await writeFor(desk, request, (unit) =>
          createBlocks(unit, body.book_id, [asked], body.position_after_id),
        );
        if (!block) throw new Error("no block was created");
        return created(path, shown(block));
      },
      {
        parse,
        body: creation,
        detail: {
          summary: "Puts a block into a book: after the block `position_after_id`, at the start (null), or at the end.",
        },
      },
    )
    .get(
      path,
      async ({ query }) => {
        const page = pageOf(query);
        return answerPage(await listBlocks(desk.db, query.book_id, page), page, shown);
      },
      { query: listing, detail: { summary: "Lists the blocks of a book, in reading order." } },
    )
    .patch(
      `${path}/:id`,
      async ({ body: { block_type, content, heading_level, metadata, position_after_id }, params, request }) => {
        const change = {
          ...(block_type === undefined ? {} : { type: block_type }),
          ...(content === undefined ? {} : { content }),
          ...(heading_level === undefined ? {} : { headingLevel: heading_level }),
          ...(metadata === undefined ? {} : { meta: metaOf(metadata) }),
          ...(position_after_id === undefined ? {} : { afterId: position_after_id }),
        };
        const seconds = desk.config.CHRONICLE_BLOCK_UPDATED_DEDUPE_SECONDS;
        const expected = expectedVersions(request);
        return answer(
          shown(await writeFor(desk, request, (unit) => changeBlock(unit, params.id, change, seconds, expected))),
        );
      },
      {
        parse,
        body: patch,
        params: idParams,
        detail: {
          summary:
            "Changes the given fields; `position_after_id` moves the block after that one, or to the start (null).",
        },
      },
    );
  entityRoutes(app, desk, path, shown, readBlock, deleteBlock, "Deletes the block.");
}

import { Type } from "@sinclair/typebox";
import type { Elysia } from "elysia";
import { blockTypes } from "../db/schema.ts";
import { type Block, createBlocks, deleteBlock, readBlock } from "../library/blocks.ts";
import { created, type Desk, jsonBody, noContent, writeFor } from "./desk.ts";
import { fields, idParams, nullable, oneOf, prose, uuid } from "./schema.ts";

const path = "/api/v1/blocks";

const creation = fields({
  book_id: uuid(),
  block_type: oneOf(blockTypes),
  content: prose(),
  heading_level: nullable(Type.Integer({ minimum: 1, maximum: 6, description: "a heading's level from 1 to 6" })),
  metadata: nullable(Type.Object({}, { additionalProperties: true, description: "a JSON object" })),
  /** Absent or null: at the end. */
  position_after_id: nullable(uuid()),
});

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

export function blockRoutes(app: Elysia, desk: Desk): void {
  app
    .post(
      path,
      async ({ body, request }) => {
        const asked = {
          type: body.block_type,
          content: body.content,
          headingLevel: body.heading_level ?? null,
          meta: body.metadata ? JSON.stringify(body.metadata) : null,
        };
        const [block] = await writeFor(desk, request, (unit) =>
          createBlocks(unit, body.book_id, [asked], body.position_after_id ?? undefined),
        );
        if (!block) throw new Error("no block was created");
        return created(path, shown(block));
      },
      { parse: jsonBody(desk), body: creation },
    )
    .get(`${path}/:id`, async ({ params }) => shown(await readBlock(desk.db, params.id)), { params: idParams })
    .delete(
      `${path}/:id`,
      async ({ params, request }) => {
        await writeFor(desk, request, (unit) => deleteBlock(unit, params.id));
        return noContent();
      },
      { params: idParams },
    );
}

import { and, eq, getTableColumns, type SQL, sql } from "drizzle-orm";
import type { Db, Tx } from "../db/client.ts";
import { blocks, type blockTypes, books } from "../db/schema.ts";
import { WordloomError } from "../errors.ts";
import type { EventType } from "../events.ts";
import type { Change, Unit } from "./change.ts";
import { type Expected, type Listed, listLiving, living, type Page, readLiving, unwritable } from "./living.ts";

export type Block = typeof blocks.$inferSelect;

export type BlockFields = {
  readonly type: (typeof blockTypes)[number];
  readonly content: string;
  readonly headingLevel?: number | null;
  /** JSON text. */
  readonly meta?: string | null;
};

const changed = (block: Block, libraryId: string, eventType: EventType, payload: Change["payload"]): Change => ({
  entityType: "block",
  entityId: block.id,
  version: block.version,
  op: block.softDeletedAt === null ? "upsert" : "delete",
  eventType,
  libraryId,
  bookId: block.bookId,
  title: "",
  text: block.content,
  payload,
});

/** The two positions that new blocks go between; `before` null: at the end. */
type Gap = { readonly after: string; readonly before: string | null };

/** A statement has 65,535 parameters at most. */
const blocksAtOnce = 500;

const smallestStep = "0.000000000000000002";

async function gapAfter(tx: Tx, bookId: string, afterId: string | null | undefined): Promise<Gap> {
  if (afterId === null) {
    const [start] = await tx.execute<Gap>(
      sql`select coalesce(min("order") - 1, 0)::text as after, min("order")::text as before from blocks where book_id = ${bookId}`,
    );
    return start ?? { after: "0", before: null };
  }
  if (afterId === undefined) {
    const [end] = await tx.execute<{ after: string }>(
      sql`select coalesce(max("order"), 0)::text as after from blocks where book_id = ${bookId}`,
    );
    return { after: end?.after ?? "0", before: null };
  }
  const [gap] = await tx.execute<Gap>(sql`
    select a."order"::text as after,
           (select min(n."order")::text from blocks n where n.book_id = a.book_id and n."order" > a."order") as before
      from blocks a
     where a.id = ${afterId} and a.book_id = ${bookId} and a.soft_deleted_at is null`);
  if (!gap) throw new WordloomError("BLOCK_NOT_FOUND", "There is no such block to put it after");
  return gap;
}

/**
 * A gap with room for `count` blocks. Eighteen decimals are used up by about sixty inserts at one place; then the whole book is renumbered.
 * That is no write of the blocks (nobody sees it but as the same sequence), so their versions stay.
 */
async function roomFor(tx: Tx, bookId: string, afterId: string | null | undefined, count: number): Promise<Gap> {
  const gap = await gapAfter(tx, bookId, afterId);
  if (gap.before === null) return gap;
  const [room] = await tx.execute<{ fits: boolean }>(
    sql`select (${gap.before}::numeric - ${gap.after}::numeric) / ${count + 1} > ${smallestStep}::numeric as fits`,
  );
  if (room?.fits) return gap;
  await tx.execute(sql`
    update blocks b set "order" = n.place
      from (select id, row_number() over (order by "order", id) as place from blocks where book_id = ${bookId}) n
     where b.id = n.id`);
  return await gapAfter(tx, bookId, afterId);
}

/** Locks the book exclusively until the commit: it cannot be deleted meanwhile, and no two blocks that are put into it get the same place. Throws BOOK_NOT_FOUND. */
async function holdBook(unit: Unit, bookId: string): Promise<{ readonly libraryId: string }> {
  const [book] = await unit.tx
    .select({ libraryId: books.libraryId })
    .from(books)
    .where(living("BOOK", bookId))
    .for("no key update");
  if (!book) throw new WordloomError("BOOK_NOT_FOUND");
  return book;
}

/** Puts new blocks into a book, in the order given: after the block `afterId`, at the start (null), or at the end. Throws BOOK_NOT_FOUND, BLOCK_NOT_FOUND. */
export async function createBlocks(
  unit: Unit,
  bookId: string,
  fields: readonly BlockFields[],
  afterId?: string | null,
): Promise<Block[]> {
  const book = await holdBook(unit, bookId);
  if (fields.length === 0) return [];
  const { after, before } = await roomFor(unit.tx, bookId, afterId, fields.length);
  const step = before === null ? sql`1` : sql`((${before}::numeric - ${after}::numeric) / ${fields.length + 1})`;
  const created: Block[] = [];
  for (let at = 0; at < fields.length; at += blocksAtOnce) {
    const rows = await unit.tx
      .insert(blocks)
      .values(
        fields.slice(at, at + blocksAtOnce).map((block, i) => ({
          id: Bun.randomUUIDv7(),
          bookId,
          type: block.type,
          content: block.content,
          headingLevel: block.headingLevel ?? null,
          meta: block.meta ?? null,
          order: sql`${after}::numeric + ${at + i + 1} * ${step}`,
        })),
      )
      .returning();
    created.push(...rows);
  }
  await unit.record(created.map((block) => changed(block, book.libraryId, "block_created", { type: block.type })));
  return created;
}

/** Whether the chronicle has no block_updated event of this block and actor in the current window of `seconds`, by Postgres's clock; claims the window. */
async function opensWindow(unit: Unit, block: Block, seconds: number): Promise<boolean> {
  if (seconds === 0) return true;
  const opened = await unit.tx.execute(sql`
    insert into chronicle_event_dedupe_state as s (event_type, book_id, block_id, actor_id, window_seconds, last_bucket)
    values ('block_updated', ${block.bookId}, ${block.id}, ${unit.cause.actorId}, ${seconds}, floor(extract(epoch from now()) / ${seconds}))
        on conflict (event_type, book_id, block_id, actor_id, window_seconds) do update
       set last_bucket = excluded.last_bucket, updated_at = now()
     where s.last_bucket < excluded.last_bucket
    returning 1`);
  return opened.length > 0;
}

/** The order that puts a block after another one of its book, or at the start (null). Undefined for a block that is not there. Throws BLOCK_NOT_FOUND for the other one. */
async function orderAfter(unit: Unit, id: string, afterId: string | null): Promise<SQL | undefined> {
  const [block] = await unit.tx.select({ bookId: blocks.bookId }).from(blocks).where(living("BLOCK", id));
  if (!block) return undefined;
  await holdBook(unit, block.bookId);
  const { after, before } = await roomFor(unit.tx, block.bookId, afterId, 1);
  return before === null ? sql`${after}::numeric + 1` : sql`(${after}::numeric + ${before}::numeric) / 2`;
}

/**
 * Changes the fields that are given; `afterId` moves the block to after that one, or to the start (null). Search hears of every change; the chronicle of one block_updated per window of `dedupeSeconds`
 * (0: of all), and of every change of type. Throws BLOCK_NOT_FOUND, VERSION_MISMATCH.
 */
export async function changeBlock(
  unit: Unit,
  id: string,
  { afterId, ...patch }: Partial<BlockFields> & { readonly afterId?: string | null },
  dedupeSeconds: number,
  expected?: Expected,
): Promise<Block> {
  const order = afterId === undefined ? undefined : await orderAfter(unit, id, afterId);
  const [row] = await unit.tx
    .update(blocks)
    .set({
      ...patch,
      ...(order === undefined ? {} : { order }),
      version: sql`${blocks.version} + 1`,
      updatedAt: sql`now()`,
    })
    .from(books)
    .where(and(living("BLOCK", id, expected), eq(books.id, blocks.bookId)))
    .returning({ ...getTableColumns(blocks), libraryId: books.libraryId });
  if (!row) throw await unwritable(unit.tx, "change", "BLOCK", id);
  const { libraryId, ...block } = row;
  const eventType = patch.type === undefined ? "block_updated" : "block_type_changed";
  const fields = [...Object.keys(patch), ...(order === undefined ? [] : ["order"])];
  const chronicled = eventType !== "block_updated" || (await opensWindow(unit, block, dedupeSeconds));
  await unit.record([{ ...changed(block, libraryId, eventType, { fields }), chronicled }]);
  return block;
}

/** Throws BLOCK_NOT_FOUND, BLOCK_ALREADY_DELETED, VERSION_MISMATCH. */
export async function deleteBlock(unit: Unit, id: string, expected?: Expected): Promise<void> {
  const [row] = await unit.tx
    .update(blocks)
    .set({ softDeletedAt: sql`now()`, version: sql`${blocks.version} + 1`, updatedAt: sql`now()` })
    .from(books)
    .where(and(living("BLOCK", id, expected), eq(books.id, blocks.bookId)))
    .returning({ ...getTableColumns(blocks), libraryId: books.libraryId });
  if (!row) throw await unwritable(unit.tx, "delete", "BLOCK", id);
  const { libraryId, ...block } = row;
  await unit.record([changed(block, libraryId, "block_soft_deleted", {})]);
}

/** Throws BLOCK_NOT_FOUND, also for a deleted one. */
export const readBlock = (db: Db, id: string): Promise<Block> => readLiving(db, "BLOCK", id);

/** Those of one book, in the order in which they are read. Throws BOOK_NOT_FOUND. */
export async function listBlocks(db: Db, bookId: string, page: Page): Promise<Listed<Block>> {
  await readLiving(db, "BOOK", bookId);
  return await listLiving(db, "BLOCK", eq(blocks.bookId, bookId), [blocks.order, blocks.id], page);
}

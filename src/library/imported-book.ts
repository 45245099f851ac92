import { diffArrays } from "diff";
import { sql } from "drizzle-orm";
import type { Change, Unit } from "./change.ts";
import type { MarkdownBlock } from "./markdown.ts";
import { between, type Order } from "./order.ts";

/** What a file wants its book to be. */
export type ImportedBook = {
  readonly libraryId: string;
  readonly shelfId: string;
  readonly sourcePath: string;
  readonly title: string;
  readonly blocks: readonly MarkdownBlock[];
};

export type Saved = {
  readonly book: "created" | "changed" | "unchanged";
  readonly created: number;
  readonly changed: number;
  readonly deleted: number;
};

type StoredBlock = { id: string; type: string; content: string; heading_level: number | null; order: Order };
type PlacedBlock = MarkdownBlock & { readonly id: string; readonly order: Order };
type Plan = { created: PlacedBlock[]; changed: (MarkdownBlock & { readonly id: string })[]; deleted: string[] };

const rowsPerStatement = 500;
/** Above this many edits the two texts have nothing in common worth finding: the search for it grows with the square. */
const mostEdits = 2000;

function* chunks<T>(all: readonly T[]): Generator<readonly T[]> {
  for (let i = 0; i < all.length; i += rowsPerStatement) yield all.slice(i, i + rowsPerStatement);
}

type Place = Pick<ImportedBook, "libraryId"> & { readonly bookId: string };

const blockChange = (
  place: Place,
  op: Change["op"],
  eventType: string,
  id: string,
  version: bigint,
  block?: MarkdownBlock,
): Change => ({
  entityType: "block",
  entityId: id,
  version,
  op,
  eventType,
  libraryId: place.libraryId,
  bookId: place.bookId,
  title: "",
  text: block?.content ?? "",
  payload: block === undefined ? {} : { type: block.type },
});

const bookChange = (place: Place, op: Change["op"], eventType: string, version: bigint, title: string): Change => ({
  entityType: "book",
  entityId: place.bookId,
  version,
  op,
  eventType,
  libraryId: place.libraryId,
  bookId: place.bookId,
  title,
  text: "",
  payload: op === "delete" ? {} : { title },
});

/**
 * Runs of what is there against runs of what is wanted: a replaced block keeps its identity, what is the same is not touched.
 * Returns undefined when the new blocks have no room between their neighbours.
 */
function plan(stored: readonly StoredBlock[], wanted: readonly MarkdownBlock[]): Plan | undefined {
  const key = (type: string, level: number | null, content: string) => `${type} ${level ?? ""} ${content}`;
  const runs = diffArrays(
    stored.map((b) => key(b.type, b.heading_level, b.content)),
    wanted.map((b) => key(b.type, b.headingLevel, b.content)),
    { maxEditLength: mostEdits },
  ) ?? [
    { removed: true, added: false, count: stored.length },
    { removed: false, added: true, count: wanted.length },
  ];
  const result: Plan = { created: [], changed: [], deleted: [] };
  let [at, next] = [0, 0];
  let before: Order | undefined;
  let out: StoredBlock[] = [];
  let into: MarkdownBlock[] = [];
  let roomy = true;
  const settle = () => {
    for (const [i, block] of into.entries()) {
      const old = out[i];
      if (old === undefined) break;
      result.changed.push({ ...block, id: old.id });
      before = old.order;
    }
    result.deleted.push(...out.slice(into.length).map((b) => b.id));
    const fresh = into.slice(out.length);
    // The next block that stays is the upper bound: the deleted ones in between have left their places.
    const orders = between(before, stored[at]?.order, fresh.length);
    for (const [i, block] of fresh.entries()) {
      const order = orders[i];
      if (order === undefined) roomy = false;
      else result.created.push({ ...block, id: Bun.randomUUIDv7(), order });
    }
    [out, into] = [[], []];
  };
  for (const run of runs) {
    if (run.removed) {
      out = out.concat(stored.slice(at, at + run.count));
      at += run.count;
    } else if (run.added) {
      into = into.concat(wanted.slice(next, next + run.count));
      next += run.count;
    } else {
      settle();
      at += run.count;
      next += run.count;
      before = stored[at - 1]?.order;
    }
  }
  settle();
  return roomy ? result : undefined;
}

/** Gives the blocks whole numbers again. Their places are not searched, so no version rises. */
async function renumber(unit: Unit, stored: readonly StoredBlock[]): Promise<StoredBlock[]> {
  const orders = between(undefined, undefined, stored.length);
  const placed = stored.map((b, i) => ({ ...b, order: orders[i] ?? b.order }));
  for (const chunk of chunks(placed)) {
    const rows = JSON.stringify(chunk.map((b) => [b.id, b.order]));
    await unit.tx.execute(sql`
      update blocks set "order" = (b->>1)::numeric from jsonb_array_elements(${rows}::jsonb) as r(b) where id = (b->>0)::uuid`);
  }
  return placed;
}

async function createBlocks(unit: Unit, place: Place, blocks: readonly PlacedBlock[]): Promise<void> {
  for (const chunk of chunks(blocks)) {
    const rows = JSON.stringify(chunk.map((b) => [b.id, b.type, b.content, b.order, b.headingLevel]));
    await unit.tx.execute(sql`
      insert into blocks (id, book_id, type, content, "order", heading_level)
      select (b->>0)::uuid, ${place.bookId}::uuid, b->>1, b->>2, (b->>3)::numeric, (b->>4)::integer
        from jsonb_array_elements(${rows}::jsonb) as r(b)`);
    await unit.record(chunk.map((b) => blockChange(place, "upsert", "block_created", b.id, 1n, b)));
  }
}

async function changeBlocks(unit: Unit, place: Place, blocks: Plan["changed"]): Promise<void> {
  const byId = new Map(blocks.map((b) => [b.id, b]));
  for (const chunk of chunks(blocks)) {
    const rows = JSON.stringify(chunk.map((b) => [b.id, b.type, b.content, b.headingLevel]));
    const written = await unit.tx.execute<{ id: string; version: string }>(sql`
      update blocks
         set type = b->>1, content = b->>2, heading_level = (b->>3)::integer, version = version + 1, updated_at = now()
        from jsonb_array_elements(${rows}::jsonb) as r(b)
       where id = (b->>0)::uuid
      returning id, version`);
    await unit.record(
      written.map((w) => blockChange(place, "upsert", "block_updated", w.id, BigInt(w.version), byId.get(w.id))),
    );
  }
}

async function deleteBlocks(unit: Unit, place: Place, ids: readonly string[]): Promise<void> {
  for (const chunk of chunks(ids)) {
    const written = await unit.tx.execute<{ id: string; version: string }>(sql`
      update blocks set soft_deleted_at = now(), version = version + 1, updated_at = now()
       where id in (select value::uuid from jsonb_array_elements_text(${JSON.stringify(chunk)}::jsonb))
      returning id, version`);
    await unit.record(written.map((w) => blockChange(place, "delete", "block_soft_deleted", w.id, BigInt(w.version))));
  }
}

/** Writes the difference between a file and its book, found by its path, and nothing else. The caller holds the import's lock. */
export async function saveBook(unit: Unit, wanted: ImportedBook): Promise<Saved> {
  const { libraryId, sourcePath, title } = wanted;
  const [found] = await unit.tx.execute<{ id: string; title: string }>(sql`
    select id, title from books
     where library_id = ${libraryId}::uuid and source_path = ${sourcePath} and soft_deleted_at is null for update`);
  const place = { libraryId, bookId: found?.id ?? Bun.randomUUIDv7() };
  if (!found) {
    await unit.tx.execute(sql`
      insert into books (id, bookshelf_id, library_id, title, source_path)
      values (${place.bookId}::uuid, ${wanted.shelfId}::uuid, ${libraryId}::uuid, ${title}, ${sourcePath})`);
    await unit.record([bookChange(place, "upsert", "book_created", 1n, title)]);
  } else if (found.title !== title) {
    const [row] = await unit.tx.execute<{ version: string }>(sql`
      update books set title = ${title}, version = version + 1, updated_at = now()
       where id = ${found.id}::uuid returning version`);
    if (row) await unit.record([bookChange(place, "upsert", "book_renamed", BigInt(row.version), title)]);
  }
  const stored = found
    ? await unit.tx.execute<StoredBlock>(sql`
        select id, type, content, heading_level, "order" from blocks
         where book_id = ${found.id}::uuid and soft_deleted_at is null order by "order", id for update`)
    : [];
  const planned = plan(stored, wanted.blocks) ?? plan(await renumber(unit, stored), wanted.blocks);
  if (!planned) throw new Error("whole numbers left no room between blocks");
  const { created, changed, deleted } = planned;
  await deleteBlocks(unit, place, deleted);
  await changeBlocks(unit, place, changed);
  await createBlocks(unit, place, created);
  const touched = created.length + changed.length + deleted.length > 0 || found?.title !== title;
  return {
    book: found ? (touched ? "changed" : "unchanged") : "created",
    created: created.length,
    changed: changed.length,
    deleted: deleted.length,
  };
}

/** Deletes an imported book with its blocks. Returns how many blocks went with it, or undefined when there is no such book any more. */
export async function deleteImportedBook(
  unit: Unit,
  libraryId: string,
  sourcePath: string,
): Promise<number | undefined> {
  const [book] = await unit.tx.execute<{ id: string; version: string }>(sql`
    update books set soft_deleted_at = now(), status = 'deleted', version = version + 1, updated_at = now()
     where library_id = ${libraryId}::uuid and source_path = ${sourcePath} and soft_deleted_at is null
    returning id, version`);
  if (!book) return undefined;
  const place = { libraryId, bookId: book.id };
  const blocks = await unit.tx.execute<{ id: string }>(
    sql`select id from blocks where book_id = ${book.id}::uuid and soft_deleted_at is null for update`,
  );
  await deleteBlocks(
    unit,
    place,
    blocks.map((b) => b.id),
  );
  await unit.record([bookChange(place, "delete", "book_deleted", BigInt(book.version), "")]);
  return blocks.length;
}

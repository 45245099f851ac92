import { diffArrays } from "diff";
import { and, count, eq, isNull, sql } from "drizzle-orm";
import { blocks, books } from "../db/schema.ts";
import type { EventType } from "../events.ts";
import { createBlocks } from "./blocks.ts";
import { changeBook, createBook, deleteBook } from "./books.ts";
import type { Change, Unit } from "./change.ts";
import type { MarkdownBlock } from "./markdown.ts";

/** The book that a file describes. */
export type ImportedBook = {
  readonly libraryId: string;
  /** Where a new one goes. */
  readonly shelfId: () => Promise<string>;
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

type StoredBlock = { id: string; type: string; content: string; heading_level: number | null };
type Plan = {
  /** Each run goes after the block of that id, null: at the start. */
  created: { readonly afterId: string | null; readonly blocks: readonly MarkdownBlock[] }[];
  changed: (MarkdownBlock & { readonly id: string })[];
  deleted: string[];
};

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
  eventType: EventType,
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

/** Compares existing runs with wanted runs: a replaced block keeps its identity, an unchanged one is not touched. */
function plan(stored: readonly StoredBlock[], wanted: readonly MarkdownBlock[]): Plan {
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
  let afterId: string | null = null;
  let out: StoredBlock[] = [];
  let into: MarkdownBlock[] = [];
  const settle = () => {
    for (const [i, block] of into.entries()) {
      const id = out[i]?.id;
      if (id === undefined) break;
      result.changed.push({ ...block, id });
      afterId = id;
    }
    result.deleted.push(...out.slice(into.length).map((b) => b.id));
    if (into.length > out.length) result.created.push({ afterId, blocks: into.slice(out.length) });
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
      afterId = stored[at - 1]?.id ?? null;
    }
  }
  settle();
  return result;
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

const aliveAt = (libraryId: string, sourcePath: string) =>
  and(eq(books.libraryId, libraryId), eq(books.sourcePath, sourcePath), isNull(books.softDeletedAt));

/** Writes the difference between a file and its book, found by its path, and nothing else. The caller holds the import's lock. */
export async function saveBook(unit: Unit, wanted: ImportedBook): Promise<Saved> {
  const { libraryId, sourcePath, title } = wanted;
  const [found] = await unit.tx
    .select({ id: books.id, title: books.title })
    .from(books)
    .where(aliveAt(libraryId, sourcePath))
    .for("no key update");
  const book = found ?? (await createBook(unit, { bookshelfId: await wanted.shelfId(), libraryId, title, sourcePath }));
  if (book.title !== title) await changeBook(unit, book.id, { title });
  const place = { libraryId, bookId: book.id };
  const stored = found
    ? await unit.tx.execute<StoredBlock>(sql`
        select id, type, content, heading_level from blocks
         where book_id = ${found.id}::uuid and soft_deleted_at is null order by "order", id for update`)
    : [];
  const { created, changed, deleted } = plan(stored, wanted.blocks);
  await deleteBlocks(unit, place, deleted);
  await changeBlocks(unit, place, changed);
  for (const run of created) await createBlocks(unit, book.id, run.blocks, run.afterId);
  const touched = created.length + changed.length + deleted.length > 0 || book.title !== title;
  return {
    book: found ? (touched ? "changed" : "unchanged") : "created",
    created: created.reduce((sum, run) => sum + run.blocks.length, 0),
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
  const [book] = await unit.tx.select({ id: books.id }).from(books).where(aliveAt(libraryId, sourcePath)).for("update");
  if (!book) return undefined;
  const [alive] = await unit.tx
    .select({ count: count() })
    .from(blocks)
    .where(and(eq(blocks.bookId, book.id), isNull(blocks.softDeletedAt)));
  await deleteBook(unit, book.id);
  return alive?.count ?? 0;
}

import { afterAll, expect, test } from "bun:test";
import { eq, sql } from "drizzle-orm";
import { blocks, books, searchIndex } from "../../src/db/schema.ts";
import { WordloomError } from "../../src/errors.ts";
import { changeBlock, createBlocks, deleteBlock, readBlock } from "../../src/library/blocks.ts";
import { changeBook, createBook, deleteBook, readBook } from "../../src/library/books.ts";
import { changeBookshelf, createBookshelf, deleteBookshelf, readBookshelf } from "../../src/library/bookshelves.ts";
import { changeLibrary, createLibrary, deleteLibrary, readLibrary } from "../../src/library/libraries.ts";
import { cause, contradictions, createTag, inOneWrite, rejection, shelve } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";

const database = await testDatabase();
const { db, close } = database.open({ max: 10 });
afterAll(close);

const codeOf = async (work: Promise<unknown>) => {
  const error = await rejection(work);
  return error instanceof WordloomError ? error.code : error;
};
const nobody = "00000000-0000-7000-8000-000000000000";
const indexed = async (id: string) => (await db.select().from(searchIndex).where(eq(searchIndex.entityId, id)))[0];

test("each entity puts its own words into the index, and every change raises its version by one", async () => {
  const { library, shelf, book, blocks: inside } = await shelve(db, "words");
  const [block] = inside;
  await inOneWrite(db, (u) => changeLibrary(u, library.id, { description: "about it" }));
  await inOneWrite(db, (u) => changeBookshelf(u, shelf.id, { name: "Renamed", description: "a shelf" }));
  await inOneWrite(db, (u) => changeBook(u, book.id, { summary: "in short" }));
  await inOneWrite(db, (u) => changeBlock(u, block?.id ?? "", { content: "所有权" }, 0));
  const at = { libraryId: library.id, eventVersion: 2n, deletedAt: null };
  expect(await indexed(library.id)).toMatchObject({ ...at, title: "words", text: "about it", bookId: null });
  expect(await indexed(shelf.id)).toMatchObject({ ...at, title: "Renamed", text: "a shelf", bookId: null });
  expect(await indexed(book.id)).toMatchObject({ ...at, title: "Book", text: "in short", bookId: book.id });
  expect(await indexed(block?.id ?? "")).toMatchObject({
    ...at,
    title: "",
    text: "所有权",
    snippet: "所有权",
    bookId: book.id,
  });
});

test("the stored snippet never ends in half a character", async () => {
  const { book } = await shelve(db, "astral");
  const [block] = await inOneWrite(db, (u) =>
    createBlocks(u, book.id, [{ type: "text", content: `x${"🧵".repeat(300)}` }]),
  );
  expect((await indexed(block?.id ?? ""))?.snippet).toBe(`x${"🧵".repeat(199)}`);
});

test("deleting a library deletes all below it, each with its own version, tombstone and events", async () => {
  const { library, shelf, book, blocks: inside } = await shelve(db, "doomed", 3);
  const { book: spared } = await shelve(db, "spared", 1);
  await inOneWrite(db, (u) => deleteBlock(u, inside[0]?.id ?? ""));
  await inOneWrite(db, (u) => deleteLibrary(u, library.id));
  for (const id of [library.id, shelf.id, book.id, inside[1]?.id ?? "", inside[2]?.id ?? ""])
    expect(await indexed(id)).toMatchObject({ eventVersion: 2n, deletedAt: expect.any(Date), text: "", title: "" });
  expect((await indexed(spared.id))?.deletedAt).toBeNull();
  const events = await db.execute(
    sql`select event_type, count(*)::int as n from chronicle_events where library_id = ${library.id} and event_type ~ 'deleted' group by 1 order by 1`,
  );
  expect([...events] as unknown[]).toEqual([
    { event_type: "block_soft_deleted", n: 3 },
    { event_type: "book_deleted", n: 1 },
    { event_type: "bookshelf_deleted", n: 1 },
    { event_type: "library_deleted", n: 1 },
  ]);
});

test("deleting a bookshelf or a book spares its neighbours", async () => {
  const { library, shelf, book } = await shelve(db, "neighbours", 2);
  const other = await inOneWrite(db, async (u) => {
    const nextShelf = await createBookshelf(u, { libraryId: library.id, name: "Next" });
    const nextBook = await createBook(u, { bookshelfId: shelf.id, title: "Next" });
    const far = await createBook(u, { bookshelfId: nextShelf.id, title: "Far" });
    const [block] = await createBlocks(u, nextBook.id, [{ type: "text", content: "stays" }]);
    return { nextShelf, nextBook, far, block };
  });
  await inOneWrite(db, (u) => deleteBook(u, book.id));
  expect(await readBook(db, other.nextBook.id)).toMatchObject({ version: 1n });
  expect(await readBlock(db, other.block?.id ?? "")).toMatchObject({ version: 1n });
  await inOneWrite(db, (u) => deleteBookshelf(u, shelf.id));
  expect(await codeOf(readBook(db, other.nextBook.id))).toBe("BOOK_NOT_FOUND");
  expect(await codeOf(readBlock(db, other.block?.id ?? ""))).toBe("BLOCK_NOT_FOUND");
  expect(await readBook(db, other.far.id)).toMatchObject({ version: 1n });
  expect(await readLibrary(db, library.id)).toMatchObject({ version: 1n });
});

test("a second delete is told apart from a delete of nothing, and nothing is created, changed or read below or in the deleted", async () => {
  const { library, shelf, book, blocks: inside } = await shelve(db, "gone");
  const block = inside[0]?.id ?? "";
  const run = (work: Parameters<typeof inOneWrite<unknown>>[1]) => codeOf(inOneWrite(db, work));
  expect(await run((u) => deleteLibrary(u, nobody))).toBe("LIBRARY_NOT_FOUND");
  expect(await run((u) => deleteBookshelf(u, nobody))).toBe("BOOKSHELF_NOT_FOUND");
  expect(await run((u) => deleteBook(u, nobody))).toBe("BOOK_NOT_FOUND");
  expect(await run((u) => deleteBlock(u, nobody))).toBe("BLOCK_NOT_FOUND");
  await inOneWrite(db, (u) => deleteLibrary(u, library.id));
  expect(await run((u) => deleteLibrary(u, library.id))).toBe("LIBRARY_ALREADY_DELETED");
  expect(await run((u) => deleteBookshelf(u, shelf.id))).toBe("BOOKSHELF_ALREADY_DELETED");
  expect(await run((u) => deleteBook(u, book.id))).toBe("BOOK_ALREADY_DELETED");
  expect(await run((u) => deleteBlock(u, block))).toBe("BLOCK_ALREADY_DELETED");
  expect(await run((u) => createBookshelf(u, { libraryId: library.id, name: "x" }))).toBe("LIBRARY_NOT_FOUND");
  expect(await run((u) => createBook(u, { bookshelfId: shelf.id, title: "x" }))).toBe("BOOKSHELF_NOT_FOUND");
  expect(await run((u) => createBlocks(u, book.id, [{ type: "text", content: "x" }]))).toBe("BOOK_NOT_FOUND");
  expect(await run((u) => changeLibrary(u, library.id, { name: "x" }))).toBe("LIBRARY_NOT_FOUND");
  expect(await run((u) => changeBookshelf(u, shelf.id, { name: "x" }))).toBe("BOOKSHELF_NOT_FOUND");
  expect(await run((u) => changeBook(u, book.id, { title: "x" }))).toBe("BOOK_NOT_FOUND");
  expect(await run((u) => changeBlock(u, block, { content: "x" }, 0))).toBe("BLOCK_NOT_FOUND");
  expect(await codeOf(readLibrary(db, library.id))).toBe("LIBRARY_NOT_FOUND");
  expect(await codeOf(readBookshelf(db, shelf.id))).toBe("BOOKSHELF_NOT_FOUND");
});

test("a name is free again once its owner is deleted, and only then", async () => {
  const { library, shelf } = await shelve(db, "taken");
  const run = (work: Parameters<typeof inOneWrite<unknown>>[1]) => codeOf(inOneWrite(db, work));
  expect(await run((u) => createLibrary(u, { name: "taken" }))).toBe("LIBRARY_ALREADY_EXISTS");
  expect(await run((u) => createBookshelf(u, { libraryId: library.id, name: "Shelf" }))).toBe(
    "BOOKSHELF_ALREADY_EXISTS",
  );
  await inOneWrite(db, (u) => deleteBookshelf(u, shelf.id));
  await inOneWrite(db, (u) => createBookshelf(u, { libraryId: library.id, name: "Shelf" }));
  await inOneWrite(db, (u) => deleteLibrary(u, library.id));
  await inOneWrite(db, (u) => createLibrary(u, { name: "taken" }));
});

test("a book goes on a bookshelf of the library that is named with it", async () => {
  const { library, shelf } = await shelve(db, "mine");
  const { library: other } = await shelve(db, "other");
  const create = (libraryId: string) =>
    inOneWrite(db, (u) => createBook(u, { bookshelfId: shelf.id, libraryId, title: "b" }));
  expect(await codeOf(create(other.id))).toBe("BOOKSHELF_NOT_FOUND");
  expect(await create(library.id.toUpperCase())).toMatchObject({ libraryId: library.id });
});

test("of 100 tags of one name written at once exactly one is created", async () => {
  const outcomes = await Promise.all(
    Array.from({ length: 100 }, () =>
      createTag(db, { name: "the one" }).then(
        () => "created",
        (error: unknown) => (error instanceof WordloomError ? error.code : error),
      ),
    ),
  );
  expect(outcomes.filter((o) => o === "created")).toHaveLength(1);
  expect(outcomes.filter((o) => o === "TAG_ALREADY_EXISTS")).toHaveLength(99);
});

test("a child that is created while its parent is deleted is deleted with it or refused", async () => {
  for (let round = 0; round < 15; round++) {
    const { library, shelf, book } = await shelve(db, `race ${round}`);
    const settled = await Promise.allSettled([
      inOneWrite(db, (u) => createBlocks(u, book.id, [{ type: "text", content: "late" }])),
      inOneWrite(db, (u) => createBook(u, { bookshelfId: shelf.id, title: "late" })),
      inOneWrite(db, (u) => createBookshelf(u, { libraryId: library.id, name: "late" })),
      inOneWrite(db, (u) => deleteLibrary(u, library.id)),
      inOneWrite(db, (u) => createBlocks(u, book.id, [{ type: "text", content: "later" }])),
      inOneWrite(db, (u) => createBook(u, { bookshelfId: shelf.id, title: "later" })),
      inOneWrite(db, (u) => createBookshelf(u, { libraryId: library.id, name: "later" })),
    ]);
    for (const s of settled)
      if (s.status === "rejected")
        expect((s.reason as WordloomError).code).toMatch(/^(LIBRARY|BOOKSHELF|BOOK)_NOT_FOUND$/);
  }
  expect(await contradictions(db)).toEqual([]);
});

test("a child whose writer looked before the delete began is in the delete", async () => {
  // The order that loses without the parent's lock: look, delete, insert, commit.
  const { library, shelf } = await shelve(db, "held open");
  const looked = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  const creating = inOneWrite(db, async (u) => {
    await createBook(u, { bookshelfId: shelf.id, title: "late" });
    looked.resolve();
    await go.promise;
  });
  await looked.promise;
  const deleting = inOneWrite(db, (u) => deleteLibrary(u, library.id));
  const waiting = () =>
    db.execute(sql`select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`);
  await until("the delete waits", async () => (await waiting()).length > 0, 10_000);
  go.resolve();
  await Promise.all([creating, deleting]);
  const alive = await db.select().from(books).where(eq(books.libraryId, library.id));
  expect(alive.filter((b) => b.softDeletedAt === null)).toEqual([]);
});

test("concurrent appends to one book get places of their own", async () => {
  const { book } = await shelve(db, "appended", 0);
  await Promise.all(
    Array.from({ length: 30 }, (_, i) =>
      inOneWrite(db, (u) => createBlocks(u, book.id, [{ type: "text", content: `${i}` }])),
    ),
  );
  const rows = await db.select({ order: blocks.order }).from(blocks).where(eq(blocks.bookId, book.id));
  expect(new Set(rows.map((r) => r.order)).size).toBe(30);
});

const contents = async (bookId: string) =>
  (await db.select().from(blocks).where(eq(blocks.bookId, bookId)).orderBy(blocks.order, blocks.id)).map(
    (b) => b.content,
  );

test("blocks go after the block that is named, in the order given", async () => {
  const { book, blocks: made } = await shelve(db, "placed", 2);
  const first = made[0]?.id ?? "";
  const text = (content: string) => ({ type: "text" as const, content });
  await inOneWrite(db, (u) => createBlocks(u, book.id, [text("a"), text("b")], first));
  await inOneWrite(db, (u) => createBlocks(u, book.id, [text("c")], made[1]?.id));
  expect(await contents(book.id)).toEqual(["block 0", "a", "b", "block 1", "c"]);
  const { book: elsewhere } = await shelve(db, "elsewhere");
  expect(await codeOf(inOneWrite(db, (u) => createBlocks(u, elsewhere.id, [text("x")], first)))).toBe(
    "BLOCK_NOT_FOUND",
  );
});

test("two hundred blocks put at the same place keep their order, past the last decimal", async () => {
  const { book, blocks: made } = await shelve(db, "dense", 2);
  for (let i = 0; i < 200; i++)
    await inOneWrite(db, (u) => createBlocks(u, book.id, [{ type: "text", content: `${i}` }], made[0]?.id));
  expect(await contents(book.id)).toEqual([
    "block 0",
    ...Array.from({ length: 200 }, (_, i) => `${199 - i}`),
    "block 1",
  ]);
  const rows = await db.select({ order: blocks.order }).from(blocks).where(eq(blocks.bookId, book.id));
  expect(new Set(rows.map((r) => r.order)).size).toBe(202);
});

test("the chronicle hears of one block_updated per window, of every change of type, and search of all of them", async () => {
  const { blocks: made } = await shelve(db, "edited", 2);
  const [one, two] = [made[0]?.id ?? "", made[1]?.id ?? ""];
  // One window from 1970 to 2038: none ends while the test runs.
  const age = 2_147_483_647;
  const edit = (id: string, window: number) =>
    inOneWrite(db, (u) => changeBlock(u, id, { content: `${Math.random()}` }, window));
  for (let i = 0; i < 3; i++) await edit(one, age);
  await edit(two, age);
  await inOneWrite(db, (u) => changeBlock(u, one, { type: "quote" }, age));
  await inOneWrite(db, (u) => changeBlock(u, one, { type: "text" }, age));
  const heard = async (id: string) =>
    [
      ...(await db.execute<{ event_type: string }>(
        sql`select event_type from chronicle_events where block_id = ${id} and event_type <> 'block_created' order by id`,
      )),
    ].map((e) => e.event_type);
  expect(await heard(one)).toEqual(["block_updated", "block_type_changed", "block_type_changed"]);
  expect(await heard(two)).toEqual(["block_updated"]);
  expect((await readBlock(db, one)).version).toBe(6n);
  await db.execute(sql`update chronicle_event_dedupe_state set last_bucket = last_bucket - 1`);
  await edit(one, age);
  expect((await heard(one)).filter((e) => e === "block_updated")).toHaveLength(2);
  for (let i = 0; i < 3; i++) await edit(two, 0);
  expect(await heard(two)).toHaveLength(4);
});

test("a later transaction whose clock is older does not reopen the window", async () => {
  const { blocks: made } = await shelve(db, "clock");
  const id = made[0]?.id ?? "";
  await inOneWrite(db, (u) => changeBlock(u, id, { content: "1" }, 10));
  await db.execute(sql`update chronicle_event_dedupe_state set last_bucket = last_bucket + 5 where block_id = ${id}`);
  await inOneWrite(db, (u) => changeBlock(u, id, { content: "2" }, 10));
  const rows = await db.execute(
    sql`select 1 from chronicle_events where block_id = ${id} and event_type = 'block_updated'`,
  );
  expect(rows).toHaveLength(1);
});

test("the outbox rows carry the trace of their cause, and the chronicle who did it", async () => {
  const tag = await createTag(db, { name: "traced" });
  const rows = await db.execute(
    sql`select traceparent, tracestate from search_outbox_events where entity_id = ${tag.id}
        union all select o.traceparent, o.tracestate from chronicle_outbox_events o join chronicle_events c on c.id = o.entity_id where c.entity_id = ${tag.id}`,
  );
  expect([...rows] as unknown[]).toEqual(
    Array.from({ length: 2 }, () => ({ traceparent: cause.traceparent, tracestate: cause.tracestate })),
  );
  const told = await db.execute(
    sql`select actor_id, source, correlation_id, actor_kind from chronicle_events where entity_id = ${tag.id}`,
  );
  expect([...told] as unknown[]).toEqual([
    { actor_id: cause.actorId, source: "api", correlation_id: "test", actor_kind: "user" },
  ]);
});

test("50,000 blocks are deleted with their book in one transaction, no statement taking five seconds", async () => {
  const { db: strict, close: closeStrict } = database.open({ statementTimeoutMs: 5000 });
  const { book } = await shelve(db, "huge", 0);
  await db.execute(sql`
    insert into blocks (id, book_id, type, content, "order") select gen_random_uuid(), ${book.id}, 'text', 'block ' || i, i from generate_series(1, 50000) i`);
  await db.execute(sql`
    insert into search_index (entity_type, entity_id, book_id, text, event_version) select 'block', id, book_id, content, 1 from blocks where book_id = ${book.id}`);
  await inOneWrite(strict, (u) => deleteBook(u, book.id));
  const [left] = await db.execute<{ rows: number; index: number; events: number }>(sql`
    select (select count(*)::int from blocks where book_id = ${book.id} and soft_deleted_at is null) as rows,
           (select count(*)::int from search_index where book_id = ${book.id} and deleted_at is null) as index,
           (select count(*)::int from search_outbox_events e join blocks b on b.id = e.entity_id where b.book_id = ${book.id} and e.op = 'delete' and e.event_version = 2) as events`);
  expect(left).toEqual({ rows: 0, index: 0, events: 50_000 });
  await closeStrict();
}, 60_000);

test("rows, index, events and chronicle say the same after all of this", async () => {
  expect(await contradictions(db)).toEqual([]);
});

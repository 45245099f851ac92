import { afterAll, expect, test } from "bun:test";
import { chronicleEvents } from "../../src/db/schema.ts";
import { writeEntries } from "../../src/projection/chronicle/entries.ts";
import { type Answer, openApi } from "../support/api.ts";
import { testDatabase } from "../support/postgres.ts";

const { db, close } = (await testDatabase()).open();
afterAll(close);
const { send } = openApi(db);
const nobody = "00000000-0000-7000-8000-000000000000";

async function create(kind: string, fields: Record<string, unknown>): Promise<Answer["body"]> {
  const { status, body } = await send("POST", `/api/v1/${kind}`, fields);
  expect(status).toBe(201);
  return body;
}

async function list(path: string): Promise<Answer["body"]> {
  const { status, body } = await send("GET", `/api/v1/${path}`);
  expect([path, status]).toEqual([path, 200]);
  return body;
}

const library = await create("libraries", { name: "B" });
const shelf = await create("bookshelves", { library_id: library.id, name: "b" });
const book = await create("books", { bookshelf_id: shelf.id, title: "zwei" });

test("libraries and tags are listed by name, each as it is read alone", async () => {
  const first = await create("libraries", { name: "A" });
  expect(await list("libraries")).toEqual({ total: 2, items: [first, library], limit: 50, offset: 0 });
  const [z, y] = [await create("tags", { name: "z" }), await create("tags", { name: "y" })];
  expect(await list("tags")).toEqual({ total: 2, items: [y, z], limit: 50, offset: 0 });
});

test("bookshelves are listed by name, books as they came, blocks as they are read, of one parent alone", async () => {
  const other = await create("libraries", { name: "Other" });
  const alien = await create("bookshelves", { library_id: other.id, name: "a" });
  await create("blocks", {
    book_id: (await create("books", { bookshelf_id: alien.id, title: "alien" })).id,
    block_type: "text",
    content: "alien",
  });
  const a = await create("bookshelves", { library_id: library.id, name: "a" });
  expect((await list(`bookshelves?library_id=${library.id}`)).items).toEqual([a, shelf]);
  const second = await create("books", { bookshelf_id: shelf.id, title: "eins" });
  expect((await list(`books?bookshelf_id=${shelf.id}`)).items).toEqual([book, second]);
  const one = await create("blocks", { book_id: book.id, block_type: "text", content: "one" });
  const three = await create("blocks", { book_id: book.id, block_type: "text", content: "three" });
  const two = await create("blocks", {
    book_id: book.id,
    block_type: "text",
    content: "two",
    position_after_id: one.id,
  });
  expect((await list(`blocks?book_id=${book.id}`)).items).toEqual([one, two, three]);
});

test("a page holds what limit and offset name, and says how many there are in all", async () => {
  const full = await create("books", { bookshelf_id: shelf.id, title: "full" });
  for (let i = 0; i < 7; i += 1) await create("blocks", { book_id: full.id, block_type: "text", content: `${i}` });
  const contents = async (query: string) => {
    const { items, ...page } = await list(`blocks?book_id=${full.id}${query}`);
    return [items.map((b: { content: string }) => b.content).join(""), page];
  };
  expect(await contents("&limit=3")).toEqual(["012", { total: 7, limit: 3, offset: 0 }]);
  expect(await contents("&limit=3&offset=6")).toEqual(["6", { total: 7, limit: 3, offset: 6 }]);
  expect(await contents("&offset=7&cid=mine&cache_bust=1")).toEqual(["", { total: 7, limit: 50, offset: 7 }]);
});

test("what is deleted is in no list, and what was in it is not found", async () => {
  const doomed = await create("books", { bookshelf_id: shelf.id, title: "doomed" });
  await create("blocks", { book_id: doomed.id, block_type: "text", content: "doomed" });
  const before = await list(`books?bookshelf_id=${shelf.id}`);
  expect(before.items.map((b: { id: string }) => b.id)).toContain(doomed.id);
  await send("DELETE", `/api/v1/books/${doomed.id}`);
  const after = await list(`books?bookshelf_id=${shelf.id}`);
  expect([after.total, after.items]).toEqual([
    before.total - 1,
    before.items.filter((b: { id: string }) => b.id !== doomed.id),
  ]);
  for (const [path, code] of [
    [`blocks?book_id=${doomed.id}`, "BOOK_NOT_FOUND"],
    [`books?bookshelf_id=${nobody}`, "BOOKSHELF_NOT_FOUND"],
    [`bookshelves?library_id=${nobody}`, "LIBRARY_NOT_FOUND"],
    [`chronicle/books/${nobody}/events`, "BOOK_NOT_FOUND"],
  ])
    expect([path, (await send("GET", `/api/v1/${path}`)).body.code]).toEqual([path, code]);
});

test("a list without its parent, or of a page that is none, is 422", async () => {
  for (const query of [
    "bookshelves",
    "books",
    "blocks",
    `books?library_id=${library.id}`,
    "blocks?book_id=x",
    "libraries?limit=0",
    "libraries?limit=101",
    "libraries?limit=ten",
    "tags?offset=-1",
    "tags?page=2",
    `chronicle/books/${book.id}/events?event_type=made_up`,
  ])
    expect([query, (await send("GET", `/api/v1/${query}`)).body.code]).toEqual([query, "VALIDATION_ERROR"]);
});

test("the chronicle tells what happened to a book and its blocks, the last first, also when it is deleted", async () => {
  const told = await create("books", { bookshelf_id: shelf.id, title: "told" });
  const block = await create("blocks", { book_id: told.id, block_type: "quote", content: "secret words" });
  await send("PATCH", `/api/v1/books/${told.id}`, { title: "retold" }, { "x-request-id": "req-1" });
  await send("DELETE", `/api/v1/books/${told.id}`);
  const events = await db.select({ id: chronicleEvents.id }).from(chronicleEvents);
  await writeEntries(
    db,
    events.map((e) => e.id),
    1,
  );
  const page = await send("GET", `/api/v1/chronicle/books/${told.id}/events`);
  expect(page.body.total).toBe(5);
  const types = page.body.items.map((e: { event_type: string }) => e.event_type);
  // What one write did is told under one moment.
  expect([types.slice(0, 2).toSorted(), ...types.slice(2)]).toEqual([
    ["block_soft_deleted", "book_deleted"],
    "book_renamed",
    "block_created",
    "book_created",
  ]);
  expect(page.body.items[3]).toEqual({
    id: expect.any(String),
    event_type: "block_created",
    entity_type: "block",
    entity_id: block.id,
    book_id: told.id,
    block_id: block.id,
    actor_id: "550e8400-e29b-41d4-a716-446655440000",
    payload: { type: "quote" },
    summary: expect.any(String),
    source: "api",
    correlation_id: expect.any(String),
    occurred_at: expect.any(String),
    created_at: expect.any(String),
  });
  expect(page.text).not.toContain("secret words");
  expect(page.text).not.toContain("retold");
  const renamed = await list(`chronicle/books/${told.id}/events?event_type=book_renamed&limit=1`);
  expect(renamed).toMatchObject({ total: 1, limit: 1, items: [{ correlation_id: "req-1" }] });
});

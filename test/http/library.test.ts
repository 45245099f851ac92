import { afterAll, expect, test } from "bun:test";
import { type Answer, openApi } from "../support/api.ts";
import { contradictions } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";

const { db, close } = (await testDatabase()).open();
afterAll(close);
const { send } = openApi(db);
const nobody = "00000000-0000-7000-8000-000000000000";
const codeOf = ({ status, body }: Answer) => [status, body.code];

async function create(kind: string, fields: Record<string, unknown>): Promise<Answer["body"]> {
  const { status, body, headers } = await send("POST", `/api/v1/${kind}`, fields);
  expect(status).toBe(201);
  expect(headers.get("location")).toBe(`/api/v1/${kind}/${body.id}`);
  expect((await send("GET", `/api/v1/${kind}/${body.id}`)).body).toEqual(body);
  return body;
}

async function shelve(name: string) {
  const library = await create("libraries", { name });
  const bookshelf = await create("bookshelves", { library_id: library.id, name: "Shelf" });
  const book = await create("books", { library_id: library.id, bookshelf_id: bookshelf.id, title: "Book" });
  const block = await create("blocks", { book_id: book.id, block_type: "text", content: "text" });
  return { library, bookshelf, book, block };
}

test("each of the four is created, read and deleted, in the operator documents' fields", async () => {
  const library = await create("libraries", { name: "All", description: "two\nlines", theme_color: "#123456" });
  expect(library).toMatchObject({
    name: "All",
    description: "two\nlines",
    theme_color: "#123456",
    version: "1",
    pinned: false,
  });
  const bookshelf = await create("bookshelves", { library_id: library.id, name: "Shelf", description: null });
  expect(bookshelf).toMatchObject({ library_id: library.id, name: "Shelf", status: "active", version: "1" });
  const book = await create("books", { bookshelf_id: bookshelf.id, title: "Book", summary: "short", cover_icon: "📕" });
  expect(book).toMatchObject({
    library_id: library.id,
    bookshelf_id: bookshelf.id,
    status: "draft",
    maturity: "seed",
    version: "1",
  });
  const block = await create("blocks", {
    book_id: book.id,
    block_type: "heading",
    content: "文",
    heading_level: 2,
    metadata: { any: ["thing", { "\0": "\ud800" }], n: [9007199254740991, -9007199254740991, 1e-7] },
  });
  expect(block).toMatchObject({
    book_id: book.id,
    block_type: "heading",
    content: "文",
    heading_level: 2,
    metadata: { any: ["thing", { "\0": "\ud800" }], n: [9007199254740991, -9007199254740991, 1e-7] },
    order: "1.000000000000000000",
    version: "1",
    soft_deleted_at: null,
  });
  for (const [kind, code, { id }] of [
    ["blocks", "BLOCK", block],
    ["books", "BOOK", book],
    ["bookshelves", "BOOKSHELF", bookshelf],
    ["libraries", "LIBRARY", library],
  ]) {
    const at = `/api/v1/${kind}/${id}`;
    const deleted = await send("DELETE", at);
    expect([kind, deleted.status, deleted.text]).toEqual([kind, 204, ""]);
    expect(codeOf(await send("DELETE", at))).toEqual([409, `${code}_ALREADY_DELETED`]);
    expect(codeOf(await send("GET", at))).toEqual([404, `${code}_NOT_FOUND`]);
    expect(codeOf(await send("DELETE", `/api/v1/${kind}/${nobody}`))).toEqual([404, `${code}_NOT_FOUND`]);
  }
});

test("nothing is created in what is not there or is deleted", async () => {
  const { library, bookshelf, book, block } = await shelve("Parents");
  const attempts = async (library_id: string, bookshelf_id: string, book_id: string) => [
    codeOf(await send("POST", "/api/v1/bookshelves", { library_id, name: "new" })),
    codeOf(await send("POST", "/api/v1/books", { bookshelf_id, title: "new" })),
    codeOf(await send("POST", "/api/v1/blocks", { book_id, block_type: "text", content: "new" })),
  ];
  const refusals = [
    [404, "LIBRARY_NOT_FOUND"],
    [404, "BOOKSHELF_NOT_FOUND"],
    [404, "BOOK_NOT_FOUND"],
  ];
  expect(await attempts(nobody, nobody, nobody)).toEqual(refusals);
  expect(
    codeOf(
      await send("POST", "/api/v1/blocks", {
        book_id: book.id,
        block_type: "text",
        content: "x",
        position_after_id: nobody,
      }),
    ),
  ).toEqual([404, "BLOCK_NOT_FOUND"]);
  expect((await send("DELETE", `/api/v1/libraries/${library.id}`)).status).toBe(204);
  expect(await attempts(library.id, bookshelf.id, book.id)).toEqual(refusals);
  for (const [kind, { id }] of [
    ["bookshelves", bookshelf],
    ["books", book],
    ["blocks", block],
  ])
    expect([kind, (await send("GET", `/api/v1/${kind}/${id}`)).status]).toEqual([kind, 404]);
});

test("names are unique where they must be", async () => {
  const { library } = await shelve("Unique");
  expect(codeOf(await send("POST", "/api/v1/libraries", { name: "Unique" }))).toEqual([409, "LIBRARY_ALREADY_EXISTS"]);
  expect(codeOf(await send("POST", "/api/v1/bookshelves", { library_id: library.id, name: "Shelf" }))).toEqual([
    409,
    "BOOKSHELF_ALREADY_EXISTS",
  ]);
});

test("a block goes where it is put", async () => {
  const { book, block } = await shelve("Order");
  const first = await create("blocks", {
    book_id: book.id,
    block_type: "text",
    content: "first",
    position_after_id: null,
  });
  const last = await create("blocks", { book_id: book.id, block_type: "text", content: "last" });
  const between = await create("blocks", {
    book_id: book.id,
    block_type: "text",
    content: "between",
    position_after_id: block.id,
  });
  expect([first.order, block.order, between.order, last.order].map(Number)).toEqual([0.5, 1, 1.5, 2]);
});

test("what does not fit is refused and written nowhere", async () => {
  const { library, bookshelf, book } = await shelve("Limits");
  const refused: [string, Record<string, unknown>][] = [
    ["libraries", { name: "x".repeat(256) }],
    ["libraries", { name: "x", description: "x".repeat(501) }],
    ["libraries", { name: "x", user_id: nobody }],
    ["bookshelves", { library_id: library.id, name: "x", description: "x".repeat(1001) }],
    ["books", { bookshelf_id: bookshelf.id, title: "x".repeat(256) }],
    ["books", { bookshelf_id: bookshelf.id, title: "x", version: 7 }],
    ["books", { bookshelf_id: bookshelf.id, title: "x", source_path: "a.md" }],
    ["blocks", { book_id: book.id, block_type: "poem", content: "x" }],
    ["blocks", { book_id: book.id, block_type: "heading", content: "x", heading_level: 7 }],
    ["blocks", { book_id: book.id, block_type: "text", content: "x", metadata: "x" }],
    ["blocks", { book_id: book.id, block_type: "text", content: "x", order: "1" }],
  ];
  for (const [kind, fields] of refused)
    expect([kind, fields, codeOf(await send("POST", `/api/v1/${kind}`, fields))]).toEqual([
      kind,
      fields,
      [422, "VALIDATION_ERROR"],
    ]);
});

test("rows, index, events and chronicle say the same after all of this", async () => {
  expect(await contradictions(db)).toEqual([]);
});

import { afterAll, expect, test } from "bun:test";
import { eq } from "drizzle-orm";
import { searchIndex } from "../../src/db/schema.ts";
import { type Answer, openApi } from "../support/api.ts";
import { contradictions } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";

const { db, close } = (await testDatabase()).open({ max: 10 });
afterAll(close);
const api = openApi(db);
const { send } = api;
const nobody = "00000000-0000-7000-8000-000000000000";
const codeOf = ({ status, body }: Answer) => [status, body.code];

async function create(kind: string, fields: Record<string, unknown>): Promise<Answer["body"]> {
  const { status, body } = await send("POST", `/api/v1/${kind}`, fields);
  expect(status).toBe(201);
  return body;
}

let libraries = 0;
/** One entity of each kind, by the path of its kind. */
async function oneOfEach(): Promise<Record<string, Answer["body"]>> {
  libraries += 1;
  const library = await create("libraries", { name: `Library ${libraries}`, theme_color: "blue" });
  const bookshelf = await create("bookshelves", { library_id: library.id, name: "Shelf", description: "low" });
  const book = await create("books", { bookshelf_id: bookshelf.id, title: "Book", summary: "short", cover_icon: "📕" });
  const block = await create("blocks", {
    book_id: book.id,
    block_type: "heading",
    content: "text",
    heading_level: 2,
    metadata: { a: 1 },
  });
  const tag = await create("tags", { name: `Tag ${libraries}`, icon: "🧵" });
  return { libraries: library, bookshelves: bookshelf, books: book, blocks: block, tags: tag };
}

const changes: readonly [kind: string, change: Record<string, unknown>, searched: Record<string, string>][] = [
  ["libraries", { name: "Renamed", description: "about" }, { title: "Renamed", text: "about" }],
  ["libraries", { theme_color: null }, { text: "" }],
  ["bookshelves", { name: "Upper" }, { title: "Upper", text: "low" }],
  ["bookshelves", { description: null }, { text: "" }],
  ["books", { title: "Second edition", summary: "longer" }, { title: "Second edition", text: "longer" }],
  ["books", { summary: null, cover_icon: null }, { text: "" }],
  ["blocks", { content: "所有权\nof lines" }, { text: "所有权\nof lines" }],
  ["blocks", { block_type: "text", heading_level: null, metadata: null }, { text: "text" }],
  ["blocks", { metadata: { b: [2] } }, { text: "text" }],
  ["tags", { description: "about it", color: "#000000" }, { text: "about it" }],
];

test.each(changes)(
  "what is given of an entity is changed, the rest stays, and search hears of it: %s %j",
  async (kind, change, searched) => {
    const before = (await oneOfEach())[kind];
    const at = `/api/v1/${kind}/${before.id}`;
    const changed = await send("PATCH", at, change);
    const after = { ...before, ...change, version: "2", updated_at: expect.any(String) };
    expect([changed.status, changed.body]).toEqual([
      200,
      kind === "libraries" ? { ...after, last_activity_at: expect.any(String) } : after,
    ]);
    expect((await send("GET", at)).body).toEqual(changed.body);
    const [index] = await db.select().from(searchIndex).where(eq(searchIndex.entityId, before.id));
    expect(index).toMatchObject({ ...searched, eventVersion: 2n });
  },
);

test("a change without fields, with one that is not known or does not fit, of nothing or of what is deleted, changes nothing", async () => {
  const each = await oneOfEach();
  for (const [kind, entity] of Object.entries(each)) {
    const at = `/api/v1/${kind}/${entity.id}`;
    for (const misfit of [{}, { id: nobody }, { version: "9" }, { name: null, title: null, content: null }, []])
      expect([kind, misfit, ...codeOf(await send("PATCH", at, misfit))]).toEqual([
        kind,
        misfit,
        422,
        "VALIDATION_ERROR",
      ]);
    expect(codeOf(await send("PATCH", at, "{"))).toEqual([400, "MALFORMED_JSON"]);
    expect((await send("GET", at)).body).toEqual(entity);
  }
  const fields: Record<string, unknown> = {
    libraries: { name: "x" },
    bookshelves: { name: "x" },
    books: { title: "x" },
    blocks: { content: "x" },
    tags: { name: "x" },
  };
  for (const [kind, entity] of Object.entries(each).toReversed()) {
    const code = (
      kind === "libraries" ? "library" : kind === "bookshelves" ? "bookshelf" : kind.slice(0, -1)
    ).toUpperCase();
    expect((await send("DELETE", `/api/v1/${kind}/${entity.id}`)).status).toBe(204);
    for (const id of [entity.id, nobody])
      expect(codeOf(await send("PATCH", `/api/v1/${kind}/${id}`, fields[kind]))).toEqual([404, `${code}_NOT_FOUND`]);
  }
});

test("a name that another one has is 409, and nothing is renamed", async () => {
  const [one, two] = [await oneOfEach(), await oneOfEach()];
  const shelf = await create("bookshelves", { library_id: one["libraries"].id, name: "Other" });
  for (const [kind, { id }, name, code] of [
    ["libraries", two["libraries"], one["libraries"].name, "LIBRARY_ALREADY_EXISTS"],
    ["bookshelves", shelf, "Shelf", "BOOKSHELF_ALREADY_EXISTS"],
    ["tags", two["tags"], one["tags"].name, "TAG_ALREADY_EXISTS"],
  ])
    expect(codeOf(await send("PATCH", `/api/v1/${kind}/${id}`, { name }))).toEqual([409, code]);
});

test("a write over another version than If-Match names is 412 and writes nothing; over one that it names it is done", async () => {
  const change: Record<string, unknown> = {
    libraries: { description: "x" },
    bookshelves: { description: "x" },
    books: { summary: "x" },
    blocks: { content: "x" },
    tags: { description: "x" },
  };
  for (const [kind, { id }] of Object.entries(await oneOfEach()).toReversed()) {
    const at = `/api/v1/${kind}/${id}`;
    const made = await send("GET", at);
    expect([kind, made.headers.get("etag")]).toEqual([kind, '"1"']);
    const changed = await send("PATCH", at, change[kind], { "if-match": '"1"' });
    expect([kind, changed.status, changed.headers.get("etag")]).toEqual([kind, 200, '"2"']);
    for (const stale of ['"1"', '"0", "1", "3"', '"x"', "2", "", '"99999999999999999999"'])
      for (const method of ["PATCH", "DELETE"]) {
        const body = method === "PATCH" ? change[kind] : undefined;
        const refused = await send(method, at, body, { "if-match": stale });
        expect([kind, method, stale, ...codeOf(refused)]).toEqual([kind, method, stale, 412, "VERSION_MISMATCH"]);
      }
    expect((await send("GET", at)).body).toEqual(changed.body);
    expect((await send("PATCH", at, change[kind], { "if-match": "*" })).status).toBe(200);
    expect((await send("PATCH", at, change[kind], { "if-match": '"7", W/"3"' })).status).toBe(200);
    expect((await send("DELETE", at, undefined, { "if-match": '"4"' })).status).toBe(204);
    const code = (await send("PATCH", at, change[kind], { "if-match": '"4"' })).body.code;
    expect([kind, code]).toEqual([kind, expect.stringMatching(/_NOT_FOUND$/)]);
  }
});

test("of many who change what they have seen at once one is answered 200, and nobody's words are overwritten unseen", async () => {
  const { blocks: block } = await oneOfEach();
  const at = `/api/v1/blocks/${block.id}`;
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, i) => send("PATCH", at, { content: `words ${i}` }, { "if-match": '"1"' })),
  );
  expect(answers.map((a) => `${a.status}`).toSorted()).toEqual(["200", ...Array<string>(19).fill("412")]);
  const winner = answers.find((a) => a.status === 200);
  expect((await send("GET", at)).body).toEqual(winner?.body);
});

test("the chronicle has one block_updated of a block in its window, and search every change", async () => {
  const { blocks: block } = await oneOfEach();
  for (const content of ["one", "two", "three"])
    expect((await send("PATCH", `/api/v1/blocks/${block.id}`, { content })).status).toBe(200);
  const told = await db.$count(searchIndex, eq(searchIndex.eventVersion, 4n));
  expect(told).toBeGreaterThan(0);
  const events = await db.query.chronicleEvents.findMany({ where: (e) => eq(e.blockId, block.id) });
  expect(events.map((e) => e.eventType).toSorted()).toEqual(["block_created", "block_updated"]);
});

const contents = async (bookId: string): Promise<string> =>
  (await send("GET", `/api/v1/blocks?book_id=${bookId}`)).body.items
    .map((b: { content: string }) => b.content)
    .join("");

/** A book with a block for each letter, by its letter. */
async function lettered(letters: string): Promise<{ bookId: string; block: Record<string, Answer["body"]> }> {
  const { bookshelves: shelf } = await oneOfEach();
  const { id: bookId } = await create("books", { bookshelf_id: shelf.id, title: "Letters" });
  const block: Record<string, Answer["body"]> = {};
  for (const content of letters)
    block[content] = await create("blocks", { book_id: bookId, block_type: "text", content });
  return { bookId, block };
}

test("a block moves to after another one or to the start, and is written as any change", async () => {
  const { bookId, block } = await lettered("abcd");
  const move = (letter: string, after: string | null) =>
    send("PATCH", `/api/v1/blocks/${block[letter].id}`, { position_after_id: after === null ? null : block[after].id });
  for (const [letter, after, expected] of [
    ["a", "c", "bcad"],
    ["d", null, "dbca"],
    ["d", null, "dbca"],
    ["b", "a", "dcab"],
    ["b", "b", "dcab"],
  ] as const) {
    expect((await move(letter, after)).status).toBe(200);
    expect([letter, after, await contents(bookId)]).toEqual([letter, after, expected]);
  }
  const [index] = await db.select().from(searchIndex).where(eq(searchIndex.entityId, block["d"].id));
  expect(index?.eventVersion).toBe(3n);
  // The places between two blocks are used up by some sixty moves; then the book is numbered anew.
  for (let i = 0; i < 70; i += 1) {
    await move("a", "d");
    await move("c", "d");
  }
  expect(await contents(bookId)).toBe("dcab");
});

test("a block cannot move to after one of another book, and stays where it is", async () => {
  const { bookId, block } = await lettered("ab");
  const { blocks: alien } = await oneOfEach();
  for (const after of [alien.id, nobody]) {
    const at = `/api/v1/blocks/${block["b"].id}`;
    expect(codeOf(await send("PATCH", at, { content: "x", position_after_id: after }))).toEqual([
      404,
      "BLOCK_NOT_FOUND",
    ]);
  }
  expect(await contents(bookId)).toBe("ab");
  expect(codeOf(await send("PATCH", `/api/v1/blocks/${nobody}`, { position_after_id: null }))).toEqual([
    404,
    "BLOCK_NOT_FOUND",
  ]);
});

test("blocks that move to one place at once all arrive, each at a place of its own", async () => {
  const { bookId, block } = await lettered("abcdefgh");
  const moved = await Promise.all(
    "bcdefgh"
      .split("")
      .map((letter) => send("PATCH", `/api/v1/blocks/${block[letter].id}`, { position_after_id: block["a"].id })),
  );
  expect(moved.map((m) => m.status)).toEqual(Array<number>(7).fill(200));
  expect(new Set(moved.map((m) => m.body.order)).size).toBe(7);
  const read = await contents(bookId);
  expect(read[0]).toBe("a");
  expect(read.split("").toSorted().join("")).toBe("abcdefgh");
});

test("a book moves to another bookshelf of its library, and to no other", async () => {
  const { libraries: library, bookshelves: shelf, books: book } = await oneOfEach();
  const at = `/api/v1/books/${book.id}`;
  const other = await create("bookshelves", { library_id: library.id, name: "Other" });
  const moved = await send("PATCH", at, { bookshelf_id: other.id, title: "Moved" });
  expect([moved.status, moved.body]).toMatchObject([200, { bookshelf_id: other.id, title: "Moved", version: "2" }]);
  expect((await send("GET", `/api/v1/books?bookshelf_id=${shelf.id}`)).body.total).toBe(0);
  const events = await db.query.chronicleEvents.findMany({ where: (e) => eq(e.entityId, book.id) });
  expect(events.map((e) => e.eventType).toSorted()).toEqual(["book_created", "book_moved"]);
  const { bookshelves: alien } = await oneOfEach();
  expect(codeOf(await send("PATCH", at, { bookshelf_id: alien.id, title: "x" }))).toEqual([422, "INVALID_MOVE"]);
  await send("DELETE", `/api/v1/bookshelves/${shelf.id}`);
  for (const gone of [shelf.id, nobody])
    expect(codeOf(await send("PATCH", at, { bookshelf_id: gone }))).toEqual([404, "BOOKSHELF_NOT_FOUND"]);
  expect((await send("GET", at)).body).toEqual(moved.body);
});

test("after all this nothing contradicts anything", async () => {
  expect(await contradictions(db)).toEqual([]);
});

import { afterAll, beforeAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import type { ClaimedEvent } from "../../src/events.ts";
import { changeBlock, createBlocks, deleteBlock } from "../../src/library/blocks.ts";
import { createBook } from "../../src/library/books.ts";
import { createBookshelf } from "../../src/library/bookshelves.ts";
import { createLibrary, deleteLibrary } from "../../src/library/libraries.ts";
import { deleteTag } from "../../src/library/tags.ts";
import { buildItems } from "../../src/projection/search/document.ts";
import { type BulkItem, bulkBody } from "../../src/search/bulk.ts";
import { connectElasticsearch } from "../../src/search/client.ts";
import { ensureIndex } from "../../src/search/indices.ts";
import { openApi } from "../support/api.ts";
import { openEngine } from "../support/engine.ts";
import { createTag, inOneWrite } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";

const { db, close } = (await testDatabase()).open();
const engine = await openEngine();
const client = await connectElasticsearch({ url: engine.url, requestTimeoutMs: 10_000 });
const index = `wordloom-test-${crypto.randomUUID()}`;
const { send, logged } = openApi(db, { search: { client, index } });

afterAll(async () => {
  await client.indices.delete({ index: `${index}-000001` });
  await client.close();
  await engine.close();
  await close();
});

async function bulk(items: readonly BulkItem[]): Promise<void> {
  const body = bulkBody(items);
  await client.transport.request({
    method: "POST",
    path: `/${index}/_bulk`,
    querystring: { refresh: true },
    bulkBody: body,
  });
}

/** Brings the index to what Postgres holds now. */
async function project(): Promise<void> {
  const events = await db.execute<ClaimedEvent>(
    sql`select distinct entity_type as "entityType", entity_id as "entityId" from search_outbox_events`,
  );
  const items = await buildItems(db, events);
  await bulk(items.filter((item) => item !== "later"));
}

let made: Awaited<ReturnType<typeof fill>>;
async function fill() {
  const tag = await createTag(db, { name: "ownership & <borrowing>" });
  return await inOneWrite(db, async (u) => {
    const library = await createLibrary(u, { name: "The Book", description: "about ownership" });
    const shelf = await createBookshelf(u, { libraryId: library.id, name: "Chapters" });
    const book = await createBook(u, {
      bookshelfId: shelf.id,
      title: "Understanding Ownership",
      summary: "所有权 in short",
    });
    const other = await createBook(u, { bookshelfId: shelf.id, title: "Other" });
    const blocks = await createBlocks(
      u,
      book.id,
      [
        'Ownership is Rust’s most unique feature, and it has <b>deep</b> & "wide" implications for its/your language.',
        "所有权是 Rust 最为与众不同的特性，对语言的其余部分有着深刻影响。",
        `borrowing ${"x ".repeat(150)} end`,
      ].map((content) => ({ type: "text" as const, content })),
    );
    const elsewhere = await createBlocks(u, other.id, [{ type: "text", content: "ownership elsewhere" }]);
    return { library, shelf, book, other, blocks, elsewhere, tag };
  });
}

beforeAll(async () => {
  await ensureIndex(client, { alias: index, environment: "test" });
  made = await fill();
  await project();
});

const search = async (query: string, path = "") => (await send("GET", `/api/v1/search${path}?${query}`)).body;
const ids = (page: { hits: { entity_id: string }[] }) => page.hits.map((h) => h.entity_id).toSorted();
const sorted = (...entities: ({ id: string } | undefined)[]) => entities.map((e) => e?.id ?? "").toSorted();

test("a search finds entities of every type, with score, path, and where they are", async () => {
  const page = await search("q=ownership");
  expect(page).toMatchObject({ total: 5, limit: 20, offset: 0 });
  expect(ids(page)).toEqual(sorted(made.library, made.book, made.blocks[0], made.elsewhere[0], made.tag));
  const block = page.hits.find((h: { entity_id: string }) => h.entity_id === made.blocks[0]?.id);
  expect(block).toEqual({
    entity_type: "block",
    entity_id: made.blocks[0]?.id,
    title: Array.from(made.blocks[0]?.content ?? "")
      .slice(0, 100)
      .join(""),
    snippet: expect.stringContaining("<em>Ownership</em> is Rust’s"),
    score: expect.any(Number),
    path: "The Book / Chapters / Understanding Ownership",
    library_id: made.library.id,
    book_id: made.book.id,
    rank_algorithm: "bm25",
  });
  const of = (id: string) => page.hits.find((h: { entity_id: string }) => h.entity_id === id);
  expect(of(made.book.id)).toMatchObject({ title: "Understanding Ownership", path: "The Book / Chapters" });
  expect(of(made.library.id)).toMatchObject({ title: "The Book", path: null, snippet: "about <em>ownership</em>" });
  expect(of(made.tag.id)).toMatchObject({
    title: "ownership & <borrowing>",
    path: null,
    library_id: null,
    book_id: null,
  });
});

test("Chinese is found by its words", async () => {
  const page = await search(`q=${encodeURIComponent("所有权")}`);
  expect(ids(page)).toEqual(sorted(made.book, made.blocks[1]));
  expect(page.hits[0].snippet).toContain("<em>");
});

test("what is not highlighted is escaped in the same way as what is", async () => {
  const page = await search("q=ownership");
  const block = page.hits.find((h: { entity_id: string }) => h.entity_id === made.blocks[0]?.id);
  expect(block.snippet).toContain("&lt;b&gt;deep&lt;&#x2F;b&gt; &amp; &quot;wide&quot; implications for its&#x2F;your");
  const tag = page.hits.find((h: { entity_id: string }) => h.entity_id === made.tag.id);
  expect(tag.snippet).toBe("<em>ownership</em> &amp; &lt;borrowing&gt;");
});

test("every filter is applied, alone and together", async () => {
  expect(ids(await search(`q=ownership&entity_type=tag`))).toEqual([made.tag.id]);
  expect(ids(await search(`q=ownership&library_id=${made.library.id.toUpperCase()}`))).toEqual(
    sorted(made.library, made.book, made.blocks[0], made.elsewhere[0]),
  );
  expect(ids(await search(`q=ownership&book_id=${made.other.id}`))).toEqual(sorted(made.elsewhere[0]));
  expect(ids(await search(`q=ownership&book_id=${made.other.id}&entity_type=book`))).toEqual([]);
  expect(ids(await search(`q=ownership`, "/blocks"))).toEqual(sorted(made.blocks[0], made.elsewhere[0]));
  expect(ids(await search(`q=ownership&book_id=${made.book.id}`, "/blocks"))).toEqual(sorted(made.blocks[0]));
  expect(ids(await search(`q=ownership`, "/tags"))).toEqual([made.tag.id]);
  expect(ids(await search(`q=ownership&library_id=${made.library.id}`, "/books"))).toEqual([made.book.id]);
  expect(ids(await search(`q=ownership&library_id=${made.book.id}`, "/books"))).toEqual([]);
});

test("every word must be there, and a page is a piece of the whole", async () => {
  expect((await search("q=ownership+nowhere")).total).toBe(0);
  expect((await search("q=...")).total).toBe(0);
  const whole = (await search("q=ownership")).hits.map((h: { entity_id: string }) => h.entity_id);
  const pages = await Promise.all([0, 2, 4].map((offset) => search(`q=ownership&limit=2&offset=${offset}`)));
  expect(pages.flatMap((p) => p.hits.map((h: { entity_id: string }) => h.entity_id))).toEqual(whole);
  expect(pages.map((p) => [p.total, p.limit, p.offset])).toEqual([
    [5, 2, 0],
    [5, 2, 2],
    [5, 2, 4],
  ]);
});

test("what is refused says why", async () => {
  for (const query of [
    "",
    "q=",
    `q=${"x".repeat(501)}`,
    "q=%00",
    "q=a&limit=0",
    "q=a&limit=101",
    "q=a&limit=abc",
    "q=a&limit=1.5",
    "q=a&offset=-1",
    "q=a&offset=9999&limit=2",
    "q=a&offset=10000",
    "q=a&library_id=x",
    "q=a&entity_type=poem",
    "q=a&unknown=1",
  ])
    expect([query, (await send("GET", `/api/v1/search?${query}`)).status]).toEqual([query, 422]);
  expect((await send("GET", "/api/v1/search?q=a&offset=9999&limit=1")).status).toBe(200);
  const { body } = await send("GET", "/api/v1/search?q=a&limit=0");
  expect(body.errors).toEqual([{ in: "query", pointer: "/limit", detail: "must be a whole number from 1 to 100" }]);
});

test("what was deleted, or changed since it was projected, is not served, and the total says so", async () => {
  const [, , borrowing] = made.blocks;
  const before = await search("q=borrowing", "/blocks");
  expect([before.total, before.hits.length]).toEqual([1, 1]);
  await inOneWrite(db, (u) => changeBlock(u, borrowing?.id ?? "", { content: "borrowing, rewritten" }, 0));
  expect(await search("q=borrowing", "/blocks")).toMatchObject({ total: 0, hits: [] });
  await project();
  expect((await search("q=borrowing", "/blocks")).hits[0].title).toBe("borrowing, rewritten");
  await inOneWrite(db, (u) => deleteBlock(u, borrowing?.id ?? ""));
  expect(await search("q=borrowing", "/blocks")).toMatchObject({ total: 0, hits: [] });
});

test("a document without a row is not served", async () => {
  const id = crypto.randomUUID();
  const source = JSON.stringify({ entity_type: "tag", entity_id: id, title: "stray", text: "", event_version: 1 });
  await bulk([{ op: "index", id: `tag:${id}`, version: 1n, source }]);
  expect(await search("q=stray")).toMatchObject({ total: 0, hits: [] });
});

test("a document of a version that Postgres has never had is not served, and the log says so once: the database was restored", async () => {
  const tag = await createTag(db, { name: "yesterday" });
  const later = { entity_type: "tag", entity_id: tag.id, title: "yesterday and today", text: "", event_version: 2 };
  await bulk([{ op: "index", id: `tag:${tag.id}`, version: 2n, source: JSON.stringify(later) }]);
  for (let i = 0; i < 3; i += 1) expect(await search("q=yesterday")).toMatchObject({ total: 0, hits: [] });
  const told = logged.filter((line) => line.includes('"search.index_ahead"'));
  expect(told.map((line) => JSON.parse(line) as unknown)).toMatchObject([{ level: "warn", count: 1 }]);
  expect(told.join()).not.toContain("today");
});

test("a document that has come back for a tombstone is not served, whatever version it claims", async () => {
  const tag = await createTag(db, { name: "revenant" });
  await inOneWrite(db, (u) => deleteTag(u, tag.id));
  const source = JSON.stringify({
    entity_type: "tag",
    entity_id: tag.id,
    title: "revenant",
    text: "",
    event_version: 9,
  });
  await bulk([{ op: "index", id: `tag:${tag.id}`, version: 9n, source }]);
  expect(await search("q=revenant")).toMatchObject({ total: 0, hits: [] });
});

test("a text longer than the engine highlights is found all the same", async () => {
  await inOneWrite(db, (u) =>
    createBlocks(u, made.other.id, [{ type: "text", content: `longest ${"word ".repeat(220_000)}` }]),
  );
  await project();
  const page = await search("q=longest");
  expect(page.total).toBe(1);
  expect(page.hits[0].snippet).toStartWith("<em>longest</em> word");
});

test("after its library is deleted nothing of it is served, projected or not", async () => {
  await inOneWrite(db, (u) => deleteLibrary(u, made.library.id));
  expect(ids(await search("q=ownership"))).toEqual([made.tag.id]);
  await project();
  expect(await search("q=ownership")).toMatchObject({ total: 1 });
});

test("with the projection switched off a search is an empty page, and asks nobody", async () => {
  const off = openApi(null as never, { env: { ENABLE_SEARCH_PROJECTION: "off" }, search: null as never });
  const { status, body } = await off.send("GET", "/api/v1/search?q=ownership&limit=7&offset=3");
  expect([status, body]).toEqual([200, { total: 0, hits: [], limit: 7, offset: 3 }]);
});

test("an engine that does not answer, or has no index, is SEARCH_UNAVAILABLE", async () => {
  const down = openApi(db);
  const missing = openApi(db, { search: { client, index: `${index}-missing` } });
  for (const api of [down, missing]) {
    const { status, body, headers } = await api.send("GET", "/api/v1/search?q=canary7", undefined);
    expect([status, body.code, headers.get("retry-after")]).toEqual([503, "SEARCH_UNAVAILABLE", "1"]);
    expect(JSON.stringify(body)).not.toContain("canary7");
  }
});

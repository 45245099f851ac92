import { expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { readItems } from "../../src/projection/search/document.ts";
import { batchResult, openSearch, readRows, runBatch, type Seed, seed } from "../support/batch.ts";
import { requestError } from "../support/scripted-engine.ts";
import { openScriptedSearch } from "../support/scripted-search.ts";

/** Long documents are read as they are sent: a batch of them, or a page of a rebuild, would not fit into memory. */

const { db, engine, client, recorded } = await openScriptedSearch({ max: 6 });

const long = (bytes: number): Seed => ({ op: "upsert", version: 7n, row: "live", text: "x".repeat(bytes) });
const sent = () => engine.requests.map(({ items }) => items.length);
/** What became of the events, with their attempts. */
const ends = async () =>
  (await readRows(db)).map(({ status, attempts, reason }) => [status, attempts, reason].join(" ").trim()).sort();

test("a batch of more text than memory may hold is read in parts, and all of it lands in one lease", async () => {
  const seeded = await seed(db, [1000, 1000, 1000, 1000, 1000].map(long));
  await runBatch(db, openSearch(db, client, { textAtOnce: 2000 }), recorded);
  expect(sent()).toEqual([2, 2, 1]);
  for (const { documentId } of seeded) expect(engine.held.get(documentId)?.version).toBe(7n);
  expect(await ends()).toEqual(seeded.map(() => "done 1"));
  expect(batchResult(recorded)).toBe("ok");
});

test("a document that is longer than that by itself is read alone, deletes take no room", async () => {
  const gone = (row: "tombstone" | "missing"): Seed => ({ op: "delete", version: 7n, row });
  await seed(db, [long(50), long(5000), long(5000), gone("tombstone"), gone("missing")]);
  await runBatch(db, openSearch(db, client, { textAtOnce: 100 }), recorded);
  expect(sent().reduce((sum, n) => sum + n)).toBe(5);
  for (const { items } of engine.requests)
    expect(items.filter(({ op, source }) => op === "index" && (source?.length ?? 0) > 5000).length).toBeLessThan(2);
  expect(await ends()).toEqual(Array.from({ length: 5 }, () => "done 1"));
});

test("when the engine is away, what was not read yet is given back, and costs no attempt", async () => {
  await seed(db, [1000, 1000, 1000, 1000].map(long));
  engine.whole = () => requestError(503, "unavailable_shards_exception", "");
  await runBatch(db, openSearch(db, client, { textAtOnce: 1000 }), recorded);
  expect(sent()).toEqual([1]);
  // Given back without being read: that would take as long as all the rest.
  expect(await ends()).toEqual(["pending 0", "pending 0", "pending 0", "pending 1 es_5xx"]);
});

test("a page of a rebuild ends where its text would be too much, and the pages together are all there is", async () => {
  await seed(db, [1000, 10, 10, 3000, 10, 1000, 1000].map(long));
  const pages: number[] = [];
  const ids: string[] = [];
  for (let after: string | null = null; ; ) {
    const page = await readItems(db, { kind: "all" }, after, 3, 1500);
    if (page.length === 0) break;
    const bytes = page.map(({ item }) => (item.op === "index" ? item.source.length : 0));
    expect(bytes.slice(0, -1).reduce((sum, n) => sum + n, 0)).toBeLessThan(1500 + 400 * 3);
    pages.push(page.length);
    ids.push(...page.map(({ rowId }) => rowId));
    after = page.at(-1)?.rowId ?? null;
  }
  expect(Math.max(...pages)).toBeLessThanOrEqual(3);
  const all = await db.execute<{ id: string }>(sql`select id::text as id from search_index order by id`);
  expect(ids).toEqual(all.map(({ id }) => id));
});

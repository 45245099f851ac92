import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bulk } from "../../../src/embedded/elasticsearch/bulk.ts";
import { createIndex } from "../../../src/embedded/elasticsearch/indices.ts";
import { startCompilation } from "../../../src/embedded/elasticsearch/query/compilation.ts";
import { compile } from "../../../src/embedded/elasticsearch/query/compile.ts";
import { openStore } from "../../../src/embedded/elasticsearch/store.ts";

test("a search of several fields joins each row to one table, whatever their number", () => {
  const folder = mkdtempSync(join(tmpdir(), "wordloom-query-"));
  const store = openStore(folder);
  try {
    const text = { type: "text", analyzer: "cjk" };
    createIndex(store, "i", { mappings: { dynamic: "strict", properties: { a: text, b: text, c: text } } });
    const source = '{"index":{"_id":"1"}}\n{"a":"one two","b":"two one","c":"one"}\n';
    bulk(store, source, { index: "i", requireAlias: false, refresh: false });
    const index = store.indices.get("i");
    if (index === undefined) throw new Error("no index");
    const to = startCompilation({ db: store.db, index, words: index.words });
    compile(to, { multi_match: { query: "one two", fields: ["a^3", "b", "c"] } }, 1, true);
    expect(to.tables.length).toBe(4);
    expect(to.joined.size).toBe(1);
  } finally {
    store.close();
    rmSync(folder, { recursive: true });
  }
});

test("what a bulk promised lies on the disk: every commit is synced", () => {
  const folder = mkdtempSync(join(tmpdir(), "wordloom-query-"));
  const store = openStore(folder);
  try {
    expect(store.db.query("pragma synchronous").values()).toEqual([[2n]]);
    expect(store.db.query("pragma journal_mode").values()).toEqual([["wal"]]);
    expect(() => new Database(join(folder, "search.lock")).run("begin exclusive")).toThrow("locked");
  } finally {
    store.close();
    rmSync(folder, { recursive: true });
  }
});

import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import type { estypes } from "@elastic/elasticsearch";
import { connectElasticsearch } from "../../src/search/client.ts";
import { ensureIndex } from "../../src/search/indices.ts";
import {
  batchResult,
  emptyQueue,
  makeDue,
  openSearch,
  readRows,
  recordSignals,
  runBatch,
  type Seed,
  seed,
} from "../support/batch.ts";
import { testDatabase } from "../support/postgres.ts";
import { openTargets } from "./targets.ts";

/** Cells of the decision table on engines that are not of the tests' making: the embedded one, and those of ELASTIC_CONTRACT_URL. */

const database = await testDatabase();
const { db, close } = database.open();
const recorded = recordSignals();
afterAll(close);

const upsert: Seed = { op: "upsert", version: 7n, row: "live" };
const remove: Seed = { op: "delete", version: 7n, row: "tombstone" };

describe.each(await openTargets())("%s", (_, { client, newName, send }) => {
  let alias = "";
  beforeEach(async () => {
    await emptyQueue(db);
    recorded.counted();
    alias = newName();
  });

  const run = () => runBatch(db, openSearch(db, client, { index: alias, timeoutMs: 20_000 }), recorded);
  const brief = async () =>
    (await readRows(db)).map(({ status, result, reason, attempts }) => ({ status, result, reason, attempts }));
  const applied = { status: "done", result: "applied", reason: null, attempts: 1 };
  const noop = { ...applied, result: "noop" };
  const superseded = { ...applied, result: "superseded" };
  const waiting = (reason: string) => ({ status: "pending", result: null, reason, attempts: 1 });
  const failed = { status: "failed", result: null, reason: "es_4xx", attempts: 1 };
  const versionOf = async (id: string) => (await client.get({ index: alias, id }, { ignore: [404] }))["_version"];
  /** An index whose mapping is not the product's. */
  const create = (properties: Record<string, estypes.MappingProperty>) =>
    client.indices.create({
      index: `${alias}-000001`,
      mappings: { dynamic: "strict", properties },
      aliases: { [alias]: { is_write_index: true } },
    });
  const keyword = { type: "keyword" } as const;
  const fields = {
    entity_type: keyword,
    entity_id: keyword,
    library_id: keyword,
    book_id: keyword,
    title: keyword,
    text: keyword,
    rank_score: { type: "float" },
    event_version: { type: "long" },
    updated_at: { type: "date" },
  } as const;

  test("an index that somebody else has just made, or that has lost its alias, is taken, and the alias put back", async () => {
    await client.indices.create({ index: `${alias}-000001` });
    expect(await ensureIndex(client, { alias, environment: "test" })).toBe("there");
    expect(await client.indices.existsAlias({ name: alias })).toBe(true);
    expect(await ensureIndex(client, { alias, environment: "test" })).toBe("there");
  });

  test.each([1, 2])("another process may make the index right after answer %d to this one", async (moment) => {
    let answers = 0;
    using between = Bun.serve({
      port: 0,
      fetch: async (request) => {
        const { pathname, search } = new URL(request.url);
        const answer = await send(request.method, pathname + search, (await request.text()) || undefined);
        answers += 1;
        if (answers === moment + 1) await ensureIndex(client, { alias, environment: "test" });
        // Not all of its headers: the text is unpacked already.
        const kept = ["content-type", "x-elastic-product"].map((name) => [name, answer.headers.get(name) ?? ""]);
        return new Response(answer.text, { status: answer.status, headers: Object.fromEntries(kept) });
      },
    });
    // The first request asks for the engine's version.
    const slower = await connectElasticsearch({ url: between.url.origin, requestTimeoutMs: 20_000 });
    expect(await ensureIndex(slower, { alias, environment: "test" })).toBeOneOf(["there", "created"]);
    expect(answers).toBeGreaterThan(moment);
    expect(await client.indices.existsAlias({ name: alias })).toBe(true);
    await slower.close();
  });

  test("an index of another environment is refused, whether it has the alias or not", async () => {
    await ensureIndex(client, { alias, environment: "sandbox" });
    const refused = { kind: "of_another_environment", detail: expect.stringContaining("of the environment sandbox") };
    expect(await ensureIndex(client, { alias, environment: "prod" })).toMatchObject(refused);
    await client.indices.updateAliases({ actions: [{ remove: { index: `${alias}-000001`, alias } }] });
    expect(await ensureIndex(client, { alias, environment: "prod" })).toMatchObject(refused);
    expect(await client.indices.existsAlias({ name: alias })).toBe(false);
    expect(await ensureIndex(client, { alias, environment: "sandbox" })).toBe("there");
  });

  test("an index that does not say whose it is becomes that of the first who uses it, and keeps what else it says", async () => {
    const mappings = { _meta: { owner: "search team" }, dynamic: "strict", properties: fields } as const;
    await client.indices.create({ index: `${alias}-000007`, mappings, aliases: { [alias]: {} } });
    expect(await ensureIndex(client, { alias, environment: "prod" })).toBe("there");
    expect(await client.indices.getMapping({ index: alias })).toEqual({
      [`${alias}-000007`]: {
        mappings: { ...mappings, _meta: { owner: "search team", project: "wordloom", env: "prod" } },
      },
    });
    expect(await ensureIndex(client, { alias, environment: "dev" })).toMatchObject({ kind: "of_another_environment" });
  });

  test("an index of that name is refused, with what to do", async () => {
    await client.indices.create({ index: alias });
    expect(await ensureIndex(client, { alias, environment: "test" })).toMatchObject({ kind: "not_an_alias" });
  });

  test("index and delete are applied, and the delete of an absent document is a noop", async () => {
    await ensureIndex(client, { alias, environment: "test" });
    const [one, , two] = await seed(db, [upsert, remove, { ...upsert, version: 9_007_199_254_740_993n }]);
    await run();
    expect(await brief()).toEqual([applied, noop, applied]);
    expect(await versionOf(one?.documentId ?? "")).toBe(7);
    expect(recorded.counted()["outbox_idempotent_noop_total{op=delete,reason=es_404}"]).toBe(1);

    await emptyQueue(db);
    await seed(db, [{ ...remove, version: 8n, entityId: one?.entityId ?? "" }]);
    await run();
    expect(await brief()).toEqual([applied]);
    expect(await versionOf(one?.documentId ?? "")).toBeUndefined();

    // The same digits, all of them: an equal version is superseded, one more is applied.
    await emptyQueue(db);
    await seed(db, [{ ...upsert, version: 9_007_199_254_740_993n, entityId: two?.entityId ?? "" }]);
    await run();
    expect(await brief()).toEqual([superseded]);
    await emptyQueue(db);
    await seed(db, [{ ...upsert, version: 9_007_199_254_740_994n, entityId: two?.entityId ?? "" }]);
    await run();
    expect(await brief()).toEqual([applied]);
  });

  test("409: an equal and an older version are superseded, of a deleted document too, and it stays deleted", async () => {
    await ensureIndex(client, { alias, environment: "test" });
    const [a, b, c] = await seed(db, [{ ...upsert, version: 8n }, upsert, { ...remove, version: 8n }]);
    await run();
    await emptyQueue(db);
    await seed(db, [
      { ...upsert, entityId: a?.entityId ?? "" },
      { ...upsert, entityId: b?.entityId ?? "" },
      { ...upsert, entityId: c?.entityId ?? "" },
    ]);
    await run();
    expect(await brief()).toEqual([superseded, superseded, superseded]);
    expect(await versionOf(c?.documentId ?? "")).toBeUndefined();
    expect(recorded.counted()["outbox_superseded_total{op=upsert}"]).toBe(3);
  });

  test("403: index.blocks.write fails each event for good", async () => {
    await ensureIndex(client, { alias, environment: "test" });
    await client.indices.putSettings({ index: alias, settings: { "index.blocks.write": true } });
    await seed(db, [upsert, remove]);
    await run();
    expect(await brief()).toEqual([failed, failed]);
    const [row] = await readRows(db);
    expect(row?.error).toContain("cluster_block_exception");
    expect(batchResult(recorded)).toBe("failed");
  });

  test("429: read_only_allow_delete, the block of the flood stage, is retried and lands when it is lifted", async () => {
    await ensureIndex(client, { alias, environment: "test" });
    const block = (on: boolean | null) =>
      client.indices.putSettings({ index: alias, settings: { "index.blocks.read_only_allow_delete": on } });
    await block(true);
    const [event] = await seed(db, [upsert]);
    await run();
    expect(await brief()).toEqual([waiting("es_429")]);
    await block(null);
    await makeDue(db);
    await run();
    expect(await brief()).toEqual([{ ...applied, attempts: 2 }]);
    expect(await versionOf(event?.documentId ?? "")).toBe(7);
  });

  test("400: a field that a strict mapping does not know fails that event alone, with index, id and field", async () => {
    // The product always sends `snippet`.
    await create(fields);
    const [event] = await seed(db, [upsert, remove]);
    await run();
    expect(await brief()).toEqual([failed, noop]);
    const [row] = await readRows(db);
    expect(row?.error).toStartWith(`${alias}/${event?.documentId}: strict_dynamic_mapping_exception: `);
    expect(row?.error).toContain("[snippet]");
    expect(batchResult(recorded)).toBe("partial");
  });

  test("400: a value that does not fit its mapping fails that event alone, with index, id and field", async () => {
    await create({ ...fields, snippet: keyword, text: { type: "float" } });
    const [, bad] = await seed(db, [
      { ...upsert, text: "1.5" },
      { ...upsert, text: "words" },
    ]);
    await run();
    expect(await brief()).toEqual([applied, failed]);
    const row = (await readRows(db))[1];
    expect(row?.error).toStartWith(`${alias}/${bad?.documentId}: document_parsing_exception: `);
    expect(row?.error).toContain("[text]");
  });

  test("404: a missing index is no noop, for upserts, deletes and both, and none is made in the alias's place", async () => {
    for (const seeds of [[upsert], [remove], [remove, remove], [upsert, remove]]) {
      await emptyQueue(db);
      await seed(db, seeds);
      await run();
      expect(await brief()).toEqual(seeds.map(() => waiting("es_404")));
      expect(batchResult(recorded)).toBe("retry");
    }
    expect(await client.indices.exists({ index: alias })).toBe(false);
    expect(await ensureIndex(client, { alias, environment: "test" })).toBe("created");
    await makeDue(db);
    await run();
    expect((await readRows(db)).map((row) => row.status)).toEqual(["done", "done"]);
  });

  test("404: an index where the alias should be takes no document and gives no noop", async () => {
    await client.indices.create({ index: alias, mappings: { dynamic: "strict", properties: fields } });
    await seed(db, [upsert]);
    await run();
    expect(await brief()).toEqual([waiting("es_404")]);
    await emptyQueue(db);
    await seed(db, [remove]);
    await run();
    expect(await brief()).toEqual([waiting("es_404")]);
  });
});

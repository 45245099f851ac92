import { afterAll, beforeAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { connectElasticsearch } from "../../src/search/client.ts";
import { wordloom } from "../support/cli.ts";
import { startLoad } from "../support/load.ts";
import type { Process } from "../support/processes.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
/** Workers, from the first test on. */
const running: Process[] = [];
beforeAll(async () => {
  stage = await openStage();
}, 60_000);
afterAll(async () => {
  await stage?.close();
}, 60_000);

const count = async (from: ReturnType<typeof sql>) => {
  const [row] = await stage.db.execute<{ n: number }>(sql`select count(*)::int as n from ${from}`);
  return row?.n ?? 0;
};

test("rebuilds under writes, with workers at work: in the end the index is what Postgres says", async () => {
  const [api, ...workers] = await Promise.all([stage.serve(), stage.work("w1"), stage.work("w2")]);
  running.push(...workers);
  const load = startLoad(api.url, 30);
  await until("writes", async () => (await count(sql`search_index`)) > 50);
  for (const args of [[], [], ["--emit-outbox"], []]) {
    const before = await count(sql`search_index`);
    const ended = await stage.run(["rebuild", ...args, "--json"]);
    expect(ended).toMatchObject({ code: 0, err: "" });
    expect(JSON.parse(ended.out)).toMatchObject(
      args.length === 0 ? { kind: "rebuilt", refused: [] } : { kind: "emitted" },
    );
    await until("more writes", async () => (await count(sql`search_index`)) > before + 20);
    const checked = await stage.run(["check", "--json"]);
    expect(checked).toMatchObject({ code: 0, err: "" });
    expect(JSON.parse(checked.out)).toMatchObject({ wrong: 0, differences: [] });
  }
  await load.stop();
  // Whoever searches or writes meanwhile sees nothing of it.
  expect([...load.answers.keys()].filter((status) => status === 0 || status >= 500)).toEqual([]);
  await until("an empty queue", async () => (await count(sql`search_outbox_events_live`)) === 0);
  expect(await count(sql`search_index where deleted_at is not null`)).toBeGreaterThan(0);

  const rows = await stage.db.execute<{ id: string; version: string }>(
    sql`select entity_type || ':' || entity_id as id, event_version::text as version from search_index where deleted_at is null`,
  );
  const client = await connectElasticsearch({ url: stage.elastic, requestTimeoutMs: 20_000 });
  const index = "wordloom-test-search-index";
  expect(Object.keys(await client.indices.getAlias({ index }))).toEqual([`${index}-000004`]);
  await client.indices.refresh({ index });
  const found = await client.search<{ event_version: number }>({ index, size: 10_000, version: true });
  const versions = new Map(found.hits.hits.map((hit) => [hit["_id"] ?? "", String(hit["_version"])]));
  expect(versions).toEqual(new Map(rows.map(({ id, version }) => [id, version])));
  await client.close();
}, 90_000);

test("the chronicle's entries are written anew where they are missing or differ, and no others", async () => {
  await until("all entries", async () => (await count(sql`chronicle_outbox_events_live`)) === 0);
  const entries = sql`select id, event_type, payload, summary, occurred_at, projection_version from chronicle_entries order by id`;
  const before = await stage.db.execute(entries);
  expect(before.length).toBeGreaterThan(50);
  await stage.db.execute(
    sql`delete from chronicle_entries where id in (select id from chronicle_entries order by id limit 3)`,
  );
  await stage.db.execute(
    sql`update chronicle_entries set summary = 'wrong' where id in (select id from chronicle_entries order by id limit 2)`,
  );
  const ended = await stage.run(["rebuild", "--projection", "chronicle", "--json"]);
  expect(ended).toMatchObject({ code: 0, err: "" });
  expect(JSON.parse(ended.out)).toMatchObject({ kind: "rewritten", events: before.length, written: 5 });
  expect([...(await stage.db.execute(entries))]).toEqual([...before]);

  const emitted = await stage.run(["rebuild", "--projection", "chronicle", "--emit-outbox"]);
  expect(emitted.out).toStartWith(`${before.length} events of chronicle_events_to_entries queued`);
  await until("an empty queue", async () => (await count(sql`chronicle_outbox_events_live`)) === 0);
  expect([...(await stage.db.execute(entries))]).toEqual([...before]);
}, 60_000);

test("the workers show when the last rebuild ended, how long it took and how it went", async () => {
  const page = async () => await (await fetch(`http://${stage.metricsOf("w1")}/metrics`)).text();
  const of = async (name: string) =>
    Number(new RegExp(`^${name}\\{projection="search_index_to_elastic"\\} (.+)$`, "m").exec(await page())?.[1]);
  await until("the gauges", async () => (await of("projection_rebuild_last_success")) === 1);
  expect(await of("projection_rebuild_duration_seconds")).toBeGreaterThan(0);
  expect(await of("projection_rebuild_last_finished_timestamp_seconds")).toBeGreaterThan(1_700_000_000);
}, 30_000);

test("a worker does what a rebuild that was killed at its take-over has left, and says so", async () => {
  const worker = await stage.work("w5");
  const [row] = await stage.db.execute<{ id: string; version: string }>(sql`
    with owed as (update projection_status set take_over_since = pg_snapshot_xmin(pg_current_snapshot()) where projection_name = 'search_index_to_elastic')
    update search_index set event_version = event_version + 1 where id = (select id from search_index where deleted_at is null limit 1)
    returning entity_type || ':' || entity_id as id, event_version::text as version`);
  const document = async () => {
    const response = await fetch(`${stage.elastic}/wordloom-test-search-index/_doc/${row?.id}`);
    return await response.text();
  };
  await until("the document of now", async () => (await document()).includes(`"_version":${row?.version},`));
  const workers = [worker, ...running];
  const told = workers.flatMap(({ lines }) => lines.filter((line) => line.includes("search.take_over_completed")));
  expect(told.length).toBe(1);
}, 60_000);

test("a worker that makes a new index says that Postgres has documents for it, and how they come there", async () => {
  const told = (lines: readonly string[]) => lines.filter((line) => line.includes('"event":"search.index_created"'));
  const other = { ELASTIC_INDEX: "wordloom-test-other-index" };
  const first = await stage.work("w3", other);
  expect(told(first.lines)).toEqual([expect.stringContaining("wordloom rebuild")]);
  const second = await stage.work("w4", other);
  expect(told(second.lines)).toEqual([]);
}, 30_000);

test("an index of another environment is neither written nor rebuilt, and the message says what to set", async () => {
  const other = { ELASTIC_INDEX: "wordloom-test-foreign-index" };
  const index = `${other.ELASTIC_INDEX}-000001`;
  const client = await connectElasticsearch({ url: stage.elastic, requestTimeoutMs: 10_000 });
  await client.indices.create({
    index,
    mappings: { _meta: { env: "dev" } },
    aliases: { [other.ELASTIC_INDEX]: { is_write_index: true } },
  });
  for (const command of ["work", "rebuild"]) {
    const ended = await stage.run([command], other);
    expect(ended).toMatchObject({ code: 5, out: "" });
    expect(ended.err).toContain("is of the environment dev, but WORDLOOM_ENV is test; set ELASTIC_INDEX");
  }
  expect(Object.keys(await client.indices.getAlias({ index: `${other.ELASTIC_INDEX}*` }))).toEqual([index]);
  await client.close();
}, 30_000);

test("an Elasticsearch that is away is named", async () => {
  const ended = await wordloom(["rebuild"], {
    WORDLOOM_ENV: "test",
    DATABASE_URL: stage.url,
    ELASTIC_URL: "http://127.0.0.1:1",
  });
  expect(ended).toMatchObject({ code: 4, out: "" });
  expect(ended.err).toStartWith("wordloom: Elasticsearch at http://127.0.0.1:1 cannot be used");
  expect(ended.err).toContain("ELASTIC_URL");
});

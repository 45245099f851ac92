import { afterAll, beforeAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { type Collector, startCollector } from "../../src/embedded/collector/collector.ts";
import { runsIn } from "../../src/labs/evidence.ts";
import { queues } from "../../src/outbox/queue.ts";
import { start, wordloom } from "../support/cli.ts";
import { empty, enqueue, newEvents } from "../support/queue.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

/** Drills on a database, an engine and a trace store that are given, and what they refuse. */

setDefaultTimeout(120_000);
const folder = mkdtempSync(join(tmpdir(), "wordloom-labs-own-"));
// As root the database runs as another user, who must be able to enter.
chmodSync(folder, 0o755);
const outdir = join(folder, "evidence");
let stage: Stage;
let collector: Collector;
beforeAll(async () => {
  stage = await openStage();
  collector = await startCollector({ dataDir: ":memory:", port: 0 });
}, 60_000);
afterAll(async () => {
  await collector?.stop();
  await stage?.close();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);
beforeEach(async () => {
  for (const queue of Object.values(queues)) await empty(stage.db, queue);
});

const env = (): Record<string, string> => ({
  WORDLOOM_ENV: "test",
  WORDLOOM_DATA_DIR: join(folder, "data"),
  DATABASE_URL: stage.url,
  ELASTIC_URL: stage.elastic,
  OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
});
const args = (scenario: string, ...more: string[]) => ["labs", "run", scenario, "--outdir", outdir, ...more];
const jaeger = () => ["--jaeger-url", collector.queryUrl];
const labs = (scenario: string, ...more: string[]) => wordloom(args(scenario, ...jaeger(), ...more), env());

const blocked = async (): Promise<boolean> => {
  const response = await fetch(`${stage.elastic}/wordloom-test-search-index/_settings`);
  return (await response.text()).includes('"blocks":{"write":"true"}');
};

test("a drill breaks the servers that are given, its evidence holds, and nothing of it stays in the library", async () => {
  const ended = await labs("es_bulk_partial", "--run-id", "r1", "--trigger-count", "3");
  expect(ended.code, ended.err).toBe(0);
  const verified = await wordloom(["labs", "verify", "es_bulk_partial", "--outdir", outdir]);
  expect(verified.code, verified.out).toBe(0);
  const [left] = await stage.db.execute<{ tags: number; rows: number; live: number }>(sql`
    select (select count(*) from tags where deleted_at is null)::int as tags, (select count(*) from search_index where deleted_at is null)::int as rows,
           (select count(*) from search_outbox_events_live)::int + (select count(*) from chronicle_outbox_events_live)::int as live`);
  expect(left).toEqual({ tags: 0, rows: 0, live: 0 });
});

test("no password of what is given is in the evidence", async () => {
  const url = new URL(collector.queryUrl);
  [url.username, url.password] = ["bob", "s3cret"];
  const given = { ...env(), ELASTIC_URL: stage.elastic.replace("//", "//bob:s3cret@"), ELASTIC_API_KEY: "" };
  const ended = await wordloom(args("es_429_inject", "--jaeger-url", url.href, "--run-id", "secret"), given);
  expect(ended.code, ended.err).toBe(0);
  const names = Array.from(new Bun.Glob("**/*").scanSync(outdir));
  const written = await Promise.all(names.map((name) => Bun.file(join(outdir, name)).text()));
  expect(written.length).toBeGreaterThan(20);
  expect(names.filter((_, i) => written[i]?.includes("s3cret") || written[i]?.includes(stage.url))).toEqual([]);
});

test("traces of no drill are exported by their service, operation, event or batch", async () => {
  const ask = (url: string, ...more: string[]) =>
    wordloom(["labs", "export-jaeger", "--jaeger-url", url, "--outdir", outdir, ...more]);
  const service = ["--service", "wordloom-search-outbox-worker"];
  const found = await ask(collector.queryUrl, ...service, "--operation", "outbox.process", "--run-id", "all");
  expect(found).toMatchObject({ code: 0, err: "" });
  expect(found.out).toMatch(/^[1-9]\d* traces? in /);
  const id =
    (await Bun.file(join(outdir, "es_bulk_partial", "r1", "_outbox_event_id.txt")).text()).split("\n")[0] ?? "";
  const one = await ask(collector.queryUrl, ...service, "--outbox-event-id", id, "--run-id", "one");
  expect(one.out).toBe(`1 trace in ${join(outdir, "one")}\n`);
  const away = await ask("http://127.0.0.1:1", ...service, "--run-id", "away");
  expect(away).toEqual({
    code: 4,
    out: "",
    err: "wordloom: the trace store at http://127.0.0.1:1 does not answer as expected; start it or give --jaeger-url\n",
  });
});

test("a drill that is stopped mends what it has broken, ends its processes, and proves nothing", async () => {
  const child = start(args("es_write_block_4xx", ...jaeger(), "--run-id", "stopped"), env());
  const said = child.stderr.text();
  await until("the index to refuse writes", blocked, 60_000, 1);
  child.kill("SIGTERM");
  expect(await child.exited).toBe(1);
  expect(await said).toContain("stopped by a signal; partial evidence is in ");
  expect(await blocked()).toBe(false);
  const users = async () => {
    const rows = await stage.db.execute<{ name: string }>(sql`
      select distinct application_name as name from pg_stat_activity where datname = current_database() and application_name like 'wordloom-%'`);
    return rows.map(({ name }) => name);
  };
  await until("its processes to be gone", async () => (await users()).length === 0);
  expect(runsIn(outdir, "es_write_block_4xx")).toEqual(["stopped"]);
  const verified = await wordloom(["labs", "verify", "es_write_block_4xx", "--outdir", outdir]);
  expect(verified.code).toBe(10);
  expect(verified.out).toContain("the run did not end");
});

test("the write block that a killed drill has left is lifted by clean", async () => {
  const settings = (value: boolean) =>
    fetch(`${stage.elastic}/wordloom-test-search-index/_settings`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ "index.blocks.write": value }),
    });
  expect((await settings(true)).status).toBe(200);
  expect(await blocked()).toBe(true);
  const cleaned = await wordloom(["labs", "clean", "es_write_block_4xx", "--outdir", outdir], env());
  expect(cleaned.code, cleaned.err).toBe(0);
  expect(await blocked()).toBe(false);
});

test("a drill beside a worker of somebody else is refused, and one beside another drill", async () => {
  const worker = await stage.work("w1");
  const beside = await labs("es_down_connect", "--run-id", "beside");
  expect(beside.code).toBe(5);
  expect(beside.err).toContain("a worker is running on database");
  worker.kill("SIGTERM");
  await worker.exited;
  const first = start(args("stuck_reclaim", ...jaeger(), "--run-id", "first"), env());
  const locked = async () =>
    (
      await stage.db.execute(sql`
      select 1 from pg_locks l join pg_database d on d.oid = l.database where l.locktype = 'advisory' and d.datname = current_database()`)
    ).length > 0;
  await until("the first drill to be at work", locked);
  const second = await labs("es_down_connect", "--run-id", "second");
  expect(second.code).toBe(5);
  expect(second.err).toContain("another `wordloom labs run` is running on database");
  expect(await first.exited).toBe(0);
});

test("a second signal leaves at once, and leaves no process behind", async () => {
  const child = start(args("stuck_reclaim", ...jaeger(), "--run-id", "left"), env());
  const workers = async () =>
    (
      await stage.db.execute(sql`
      select 1 from pg_stat_activity where datname = current_database() and application_name in ('wordloom-worker', 'wordloom-api')`)
    ).length;
  await until("its processes", async () => (await workers()) > 1);
  child.kill("SIGTERM");
  child.kill("SIGINT");
  await child.exited;
  await until("its processes to be gone", async () => (await workers()) === 0, 15_000);
});

test("a queue that holds somebody else's events is refused", async () => {
  await enqueue(stage.db, queues.search, newEvents(2));
  const refused = await labs("es_down_connect");
  expect(refused.code).toBe(5);
  expect(refused.err).toContain("still hold 2 earlier events; run `wordloom work` until they are empty");
});

test.each([
  [
    "an environment that is not for breaking things",
    { WORDLOOM_ENV: "prod" },
    [],
    5,
    "set WORDLOOM_ENV to test or dev",
  ],
  ["a drill that is not there", {}, ["es_down"], 2, "expected one of es_down_connect, "],
  ["a name that leads out of the folder", {}, ["es_down_connect", "--run-id", "../x"], 2, "expected up to 64 letters"],
  ["a status that does not fail an event for good", {}, ["es_bulk_partial", "--partial-status", "429"], 2, "as 400"],
  ["a search engine that is away", { ELASTIC_URL: "http://127.0.0.1:1" }, [], 4, "cannot be used"],
  ["a time that is none", {}, ["es_down_connect", "--duration", "0"], 2, "expected a whole number from 1 to 3600"],
])("%s is refused", async (_, own, more, code, message) => {
  const [scenario = "es_down_connect", ...rest] = more;
  const data = { WORDLOOM_DATA_DIR: join(folder, "none") };
  const refused = await wordloom(args(scenario, ...rest), { ...data, ...own });
  expect(refused.code).toBe(code);
  expect(refused.err).toContain(message);
});

test("a thing that does not come is waited for as long as --duration says, and named", async () => {
  // Nothing refuses the one tag that is written.
  const ended = await labs(
    "es_429_inject",
    "--run-id",
    "late",
    "--every-n",
    "1000",
    "--trigger-count",
    "1",
    "--duration",
    "1",
  );
  expect(ended.code).toBe(1);
  expect(ended.err).toContain("waited 1 s for outbox_retry_scheduled_total to come to 1; partial evidence is in ");
});

import { sql } from "drizzle-orm";
import { connectElasticsearch } from "../../src/search/client.ts";
import { ensureIndex } from "../../src/search/indices.ts";
import { until } from "../support/until.ts";
import { empty, fill, report, startElasticsearch, startStore, startWorker } from "./stack.ts";

/** What history and backlog cost: the drain rate with 10 M processed and 1 M pending events, over the rate with 10,000 pending and none processed. */
const history = Number(process.env["BENCH_HISTORY"] ?? 10_000_000);
const pending = Number(process.env["BENCH_PENDING"] ?? 1_000_000);
const measured = Number(process.env["BENCH_MEASURED"] ?? 100_000);
const small = 10_000;

const store = await startStore();
const database = store.open();
const engine = await startElasticsearch(9283);
const client = await connectElasticsearch({ url: engine.url, requestTimeoutMs: 60_000 });

/** Events per second over `count` events, of those that wait. */
async function rate(index: string, count: number): Promise<number> {
  const worker = await startWorker(
    {
      DATABASE_URL: store.url,
      ELASTIC_URL: engine.url,
      ELASTIC_INDEX: index,
      OUTBOX_BULK_SIZE: "500",
      OUTBOX_CONCURRENCY: "2",
    },
    ["--projection", "search"],
  );
  const warm = Math.min(2000, count / 5);
  await until("the first events", async () => (await worker.processed()) >= warm, 120_000, 20);
  const from = await worker.processed();
  const startedAt = performance.now();
  await until("the drain", async () => (await worker.processed()) >= count, 600_000, 20);
  const rateSeen = ((await worker.processed()) - from) / ((performance.now() - startedAt) / 1000);
  await worker.stop();
  return rateSeen;
}

const index = "wordloom-test-bench-backlog";
await ensureIndex(client, { alias: index, environment: "test" });
await fill(database.db, 60_000);
await rate(index, 60_000);

const smallRates = [];
for (let i = 0; i < 5; i += 1) {
  await empty(database.db);
  await fill(database.db, small);
  smallRates.push(await rate(index, small));
}
await empty(database.db);
for (let done = 0; done < history; done += 1_000_000)
  await database.db.execute(sql`
    insert into search_outbox_events (entity_type, entity_id, op, event_version, status, result, attempts, processed_at)
    select 'block', gen_random_uuid(), 'upsert', 1, 'done', 'applied', 1, now() - interval '1 hour' from generate_series(1, ${Math.min(1_000_000, history - done)}::int)`);
for (let waiting = 0; waiting < pending; waiting += 250_000)
  await fill(database.db, Math.min(250_000, pending - waiting));
const large = await rate(index, measured);
const best = smallRates.toSorted((a, b) => b - a)[Math.floor(smallRates.length / 2)] ?? Number.NaN;
await report("backlog", {
  history,
  pending,
  measured,
  large_per_s: large,
  small_per_s: best,
  ratio: large / best,
  small_runs: smallRates,
});
await engine.close();
await database.close();
await store.close();

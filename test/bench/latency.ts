import { sql } from "drizzle-orm";
import { until } from "../support/until.ts";
import { cpuSeconds, quantile } from "./machine.ts";
import {
  empty,
  fill,
  report,
  startApi,
  startElasticsearch,
  startEmbeddedEngine,
  startStore,
  startWorker,
} from "./stack.ts";

/**
 * How soon a written tag is a document that Elasticsearch has acknowledged, at a fixed rate of writes: an open loop, in which a slow answer delays nobody, and every
 * delay counts from when the request should have been sent. Commit to document is from Postgres's time of the commit to the begin of the settle, which comes after the
 * engine's answer: by one clock, and rather too long than too short.
 */
const rates = (process.env["BENCH_RATES"] ?? "200,1000").split(",").map(Number);
const seconds = Number(process.env["BENCH_SECONDS"] ?? 30);
const engines = (process.env["BENCH_ENGINES"] ?? "embedded,real").split(",");

const store = await startStore({ commitTimes: true });
const database = store.open();

const nothingLeft = async () => {
  const [row] = await database.db.execute<{ n: string }>(sql`select count(*) as n from search_outbox_events_live`);
  return Number(row?.n) === 0;
};

async function run(rate: number, elastic: { url: string; pid: number }, index: string) {
  await empty(database.db);
  await database.db.execute(sql`truncate tags, chronicle_events, chronicle_entries cascade`);
  const env = { DATABASE_URL: store.url, ELASTIC_URL: elastic.url, ELASTIC_INDEX: index };
  const api = await startApi(env);
  const worker = await startWorker(env);
  const post = async (n: number): Promise<{ status: number; id: string }> => {
    const response = await fetch(`${api.url}/api/v1/tags`, {
      method: "POST",
      body: JSON.stringify({ name: `tag ${n}`, color: "#FFFFFF" }),
    });
    const body: unknown = await response.json();
    return {
      status: response.status,
      id: typeof body === "object" && body !== null && "id" in body ? String(body.id) : "",
    };
  };
  // Warm both processes, the pools and the engine.
  for (let n = 0; n < 300; n += 1) await post(-n - 1);
  await until("the warm-up", nothingLeft, 120_000, 20);

  const total = rate * seconds;
  const sentAt = new Map<string, number>();
  const answers: number[] = [];
  let refused = 0;
  let inFlight = 0;
  let mostInFlight = 0;
  const cpu = () => ({
    api: cpuSeconds(api.pid),
    worker: cpuSeconds(worker.pid),
    postgres: cpuSeconds(store.server.pid),
    engine: elastic.pid === 0 ? 0 : cpuSeconds(elastic.pid),
  });
  const before = cpu();
  const startedAt = performance.now();
  const epoch = Date.now() - startedAt;
  const pending: Promise<void>[] = [];
  for (let n = 0; n < total; ) {
    const due = Math.min(total, Math.floor(((performance.now() - startedAt) / 1000) * rate) + 1);
    for (; n < due; n += 1) {
      const at = startedAt + (n / rate) * 1000;
      inFlight += 1;
      mostInFlight = Math.max(mostInFlight, inFlight);
      pending.push(
        post(n).then(({ status, id }) => {
          inFlight -= 1;
          if (status !== 201) refused += 1;
          answers.push(performance.now() - at);
          sentAt.set(id, epoch + at);
        }),
      );
    }
    await Bun.sleep(1);
  }
  const lastSentAfter = (performance.now() - startedAt) / 1000;
  await Promise.all(pending);
  await until("the last document", nothingLeft, 120_000, 20);
  const after = cpu();
  const rows = await database.db.execute<{ entity_id: string; ms: number; done_at: number }>(sql`
    select entity_id::text, extract(epoch from processed_at - pg_xact_commit_timestamp(tags.xmin))::float8 * 1000 as ms, extract(epoch from processed_at)::float8 * 1000 as done_at
      from search_outbox_events join tags on tags.id = entity_id where status = 'done'`);
  const commit: number[] = [];
  const request: number[] = [];
  for (const row of rows) {
    const at = sentAt.get(row.entity_id);
    if (at === undefined) continue;
    commit.push(row.ms);
    request.push(row.done_at - at);
  }
  await worker.stop();
  await api.stop();
  const of = (values: number[]) => ({
    p50: quantile(values, 0.5),
    p90: quantile(values, 0.9),
    p99: quantile(values, 0.99),
    max: quantile(values, 1),
  });
  return {
    rate,
    written: commit.length,
    refused,
    held: lastSentAfter <= seconds * 1.02 && commit.length === total,
    most_in_flight: mostInFlight,
    request_to_answer_ms: of(answers),
    commit_to_document_ms: of(commit),
    request_to_document_ms: of(request),
    cpu_seconds: Object.fromEntries(
      Object.entries(after).map(([name, value]) => [name, value - (before[name as keyof typeof before] ?? 0)]),
    ),
  };
}

/** Drains as many events as the engine needs to compile what it does, with requests of every size. */
async function warm(url: string): Promise<void> {
  const index = "wordloom-test-bench-warm";
  await fill(database.db, 200_000);
  const worker = await startWorker({ DATABASE_URL: store.url, ELASTIC_URL: url, ELASTIC_INDEX: index });
  await until("the drain", nothingLeft, 300_000, 500);
  await worker.stop();
  for (const rate of rates) await run(rate, { url, pid: 0 }, index);
}

const results = [];
for (const engine of engines) {
  const elastic = engine === "real" ? await startElasticsearch(9282) : await startEmbeddedEngine();
  // A cold JVM is several times slower.
  if (engine === "real") await warm(elastic.url);
  for (const rate of rates)
    results.push({ engine, ...(await run(rate, elastic, `wordloom-test-bench-${engine}-${rate}`)) });
  await elastic.close();
}
await report("latency", { seconds, results });
await database.close();
await store.close();

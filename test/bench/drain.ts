import { Client, HttpConnection } from "@elastic/elasticsearch";
import { type BulkItem, bulkBody, sendBulk } from "../../src/search/bulk.ts";
import { openDrain, openIndex, settleDown, warmUp } from "./draining.ts";
import { cpuSeconds, median } from "./machine.ts";
import { report, startElasticsearch, startStore } from "./stack.ts";

/**
 * How much of Elasticsearch's own speed is left once every document goes through the queue: events drained per second by a real worker process, over documents per second of a
 * bare `_bulk` loop of the same documents, with the same client, batch size and requests in flight, alternating in the same minutes.
 */
const count = Number(process.env["BENCH_EVENTS"] ?? 200_000);
const rounds = Number(process.env["BENCH_ROUNDS"] ?? 5);
const batch = Number(process.env["BENCH_BATCH"] ?? 500);
const flights = (process.env["BENCH_INFLIGHT"] ?? "1,2,4").split(",").map(Number);

const store = await startStore();
const engine = await startElasticsearch(9281);
const client = new Client({ node: engine.url, Connection: HttpConnection, maxRetries: 0, requestTimeout: 60_000 });
const parts = { store, database: store.open(), engine, client, batch };
const signal = new AbortController().signal;

function itemsOf(n: number): BulkItem[] {
  return Array.from({ length: n }, (_, i) => {
    const entity_id = Bun.randomUUIDv7();
    const text = `Paragraph ${i}: ${`${Bun.hash(String(i)).toString(16).padStart(32, "0")} words that people write `.repeat(3)}`;
    const fields = {
      entity_type: "block",
      entity_id,
      library_id: "00000000-0000-7000-8000-000000000001",
      book_id: "00000000-0000-7000-8000-000000000002",
      title: "",
      text,
      snippet: `Paragraph ${i}`,
      rank_score: 0,
      updated_at: "2026-01-01T00:00:00.000Z",
      event_version: 1,
    };
    return { op: "index", id: `block:${entity_id}`, version: 1n, source: JSON.stringify(fields) };
  });
}

async function send(index: string, items: readonly BulkItem[], inFlight: number): Promise<void> {
  let next = 0;
  const loop = async () => {
    while (next < items.length) {
      const part = items.slice(next, next + batch);
      next += batch;
      const results = await sendBulk(client, index, part, bulkBody(part), { timeoutMs: 60_000, signal });
      if (results.some((r) => r.kind !== "answered" || r.status >= 300)) throw new Error("the bare loop failed");
    }
  };
  await Promise.all(Array.from({ length: inFlight }, loop));
}

/** The loop that does nothing else, into an index that holds as many others by then as that of the drain. Documents per second. */
async function openBare(inFlight: number) {
  const index = await openIndex(client);
  await send(index.name, itemsOf(warmUp), inFlight);
  return {
    send: async (): Promise<{ rate: number; engineUs: number }> => {
      const items = itemsOf(count);
      await settleDown(client, parts.database);
      const engineBefore = cpuSeconds(engine.pid);
      const startedAt = performance.now();
      await send(index.name, items, inFlight);
      const seconds = (performance.now() - startedAt) / 1000;
      return { rate: count / seconds, engineUs: ((cpuSeconds(engine.pid) - engineBefore) / count) * 1e6 };
    },
    close: index.close,
  };
}

const results = [];
for (const inFlight of flights) {
  const bare = await openBare(inFlight);
  const ours = await openDrain({ ...parts, inFlight });
  const runs = [];
  for (let round = 0; round < rounds; round += 1) {
    const alone = await bare.send();
    const { metrics: _, ...drained } = await ours.drain(count);
    runs.push({ bare: alone, drain: drained });
  }
  await ours.close();
  await bare.close();
  const drained = median(runs.map((r) => r.drain.rate));
  const loop = median(runs.map((r) => r.bare.rate));
  results.push({
    in_flight: inFlight,
    ratio: median(runs.map((r) => r.drain.rate / r.bare.rate)),
    drain_per_s: drained,
    bare_per_s: loop,
    cpu_ratio: median(runs.map((r) => r.drain.oursUs / r.drain.engineUs)),
    runs,
  });
}
await report("drain", { events: count, batch, rounds, results });
await parts.database.close();
await engine.close();
await store.close();

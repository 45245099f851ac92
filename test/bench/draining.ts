import type { Client } from "@elastic/elasticsearch";
import { sql } from "drizzle-orm";
import type { Database } from "../../src/db/client.ts";
import { ensureIndex } from "../../src/search/indices.ts";
import { until } from "../support/until.ts";
import { cpuSeconds } from "./machine.ts";
import { empty, fill, type startElasticsearch, type startStore, startWorker } from "./stack.ts";

/**
 * Events that a worker drains before it is measured. Bun compiles its code for that long (measured of what tells of a traced event: 30–36 us of CPU each in the first 75,000,
 * 23 in the next, 18 from then on), and a worker runs for weeks.
 */
export const warmUp = 200_000;

/** Runs `work` on an index of its own. */
export async function withIndex<T>(client: Client, work: (index: string) => Promise<T>): Promise<T> {
  const index = `wordloom-test-bench-${crypto.randomUUID().slice(0, 8)}`;
  await ensureIndex(client, index);
  try {
    return await work(index);
  } finally {
    await client.indices.delete({ index: `${index}-000001` });
  }
}

export type Drained = {
  /** Events per second. */
  readonly rate: number;
  /** CPU microseconds per event. */
  readonly engineUs: number;
  readonly oursUs: number;
  readonly workerUs: number;
  readonly postgresUs: number;
  /** The worker's page of metrics at the end. */
  readonly metrics: string;
};

/** Drains `count` events into Elasticsearch with one worker process, which has warmed up on others before. `meanwhile` runs beside it, from the end of the warm-up. */
export async function drain(parts: {
  readonly store: Awaited<ReturnType<typeof startStore>>;
  readonly database: Database;
  readonly engine: Awaited<ReturnType<typeof startElasticsearch>>;
  readonly client: Client;
  readonly count: number;
  readonly batch: number;
  readonly inFlight: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly meanwhile?: () => void;
}): Promise<Drained> {
  const { store, database, engine, client, count, batch, inFlight } = parts;
  return await withIndex(client, async (index) => {
    await empty(database.db);
    const env = {
      DATABASE_URL: store.url,
      ELASTIC_URL: engine.url,
      ELASTIC_INDEX: index,
      OUTBOX_BULK_SIZE: String(batch),
      OUTBOX_CONCURRENCY: String(inFlight),
      ...parts.env,
    };
    // The backlog is there before the worker: what is measured is a drain, from a process that has warmed up on the first events of it.
    await fill(database.db, count + warmUp);
    const worker = await startWorker(env, ["--projection", "search"]);
    // Asked for seldom: a scrape every 20 ms was measured to cost the worker as much as the work.
    await until("the warm-up", async () => (await worker.processed()) >= warmUp, 120_000, 250);
    parts.meanwhile?.();
    const cpu = () => ({
      engine: cpuSeconds(engine.pid),
      worker: cpuSeconds(worker.pid),
      postgres: cpuSeconds(store.server.pid),
    });
    const before = cpu();
    const from = count + warmUp - (await worker.processed());
    await until("the drain", async () => (await worker.processed()) === count + warmUp, 300_000, 250);
    const after = cpu();
    const metrics = await worker.metrics();
    await worker.stop();
    const [row] = await database.db.execute<{ n: string; rate: number }>(sql`
      with done as (select processed_at, row_number() over (order by processed_at) as n from search_outbox_events where status = 'done' and result = 'applied')
      select count(*) as n, (count(*) - ${warmUp}::int) / extract(epoch from max(processed_at) - min(processed_at) filter (where n > ${warmUp}::int))::float8 as rate from done`);
    if (Number(row?.n) !== count + warmUp) throw new Error("not every event was applied");
    const us = (a: number, b: number) => ((b - a) / from) * 1e6;
    return {
      rate: row?.rate ?? Number.NaN,
      engineUs: us(before.engine, after.engine),
      workerUs: us(before.worker, after.worker),
      postgresUs: us(before.postgres, after.postgres),
      oursUs: us(before.worker + before.postgres, after.worker + after.postgres),
      metrics,
    };
  });
}

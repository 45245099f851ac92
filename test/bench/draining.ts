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

/** An index of its own, until it is closed. */
export async function openIndex(
  client: Client,
): Promise<{ readonly name: string; readonly close: () => Promise<void> }> {
  const name = `wordloom-test-bench-${crypto.randomUUID().slice(0, 8)}`;
  await ensureIndex(client, { alias: name, environment: "test" });
  return {
    name,
    close: async () => {
      await client.indices.delete({ index: `${name}-000001` });
    },
  };
}

/** What is measured next does not pay for what was written before: segments are merged, pages are on the disk. */
export async function settleDown(client: Client, { db }: Database): Promise<void> {
  await db.execute(sql`checkpoint`);
  const merging = async () => {
    const { _all: all } = await client.indices.stats({ metric: "merge" });
    return all.total?.merges?.current;
  };
  await until("the engine's merges", async () => (await merging()) === 0, 60_000, 50);
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

export type Drain = {
  /** Drains so many events more. `meanwhile` runs beside it, from its start. */
  readonly drain: (count: number, meanwhile?: () => void) => Promise<Drained>;
  readonly close: () => Promise<void>;
};

/**
 * Opens one worker process that drains into an index of its own in Elasticsearch, and has warmed up. Between drains the process is halted (SIGSTOP), so that several that are
 * compared can take turns within seconds: from one minute to the next the machine differs by more than what is compared.
 */
export async function openDrain(parts: {
  readonly store: Awaited<ReturnType<typeof startStore>>;
  readonly database: Database;
  readonly engine: Awaited<ReturnType<typeof startElasticsearch>>;
  readonly client: Client;
  readonly batch: number;
  readonly inFlight: number;
  readonly env?: Readonly<Record<string, string>>;
}): Promise<Drain> {
  const { store, database, engine, client, batch, inFlight } = parts;
  const index = await openIndex(client);
  const env = {
    DATABASE_URL: store.url,
    ELASTIC_URL: engine.url,
    ELASTIC_INDEX: index.name,
    OUTBOX_BULK_SIZE: String(batch),
    OUTBOX_CONCURRENCY: String(inFlight),
    ...parts.env,
  };
  await empty(database.db);
  const worker = await startWorker(env, ["--projection", "search"]);
  const halt = () => process.kill(worker.pid, "SIGSTOP");
  const goOn = () => process.kill(worker.pid, "SIGCONT");
  const cpu = () => ({
    engine: cpuSeconds(engine.pid),
    worker: cpuSeconds(worker.pid),
    postgres: cpuSeconds(store.server.pid),
  });
  let total = 0;
  halt();

  async function drain(count: number, meanwhile?: () => void): Promise<Drained> {
    // The backlog is there before the worker goes on: what is measured is a drain.
    await empty(database.db);
    await fill(database.db, count);
    await settleDown(client, database);
    const before = cpu();
    goOn();
    meanwhile?.();
    total += count;
    // Asked for seldom: a scrape every 20 ms was measured to cost the worker as much as the work.
    await until("the drain", async () => (await worker.processed()) === total, 300_000, 250);
    const after = cpu();
    const metrics = await worker.metrics();
    halt();
    // From the end of the first batch on.
    const [row] = await database.db.execute<{ n: string; rate: number }>(sql`
      with done as (select processed_at, min(processed_at) over () as first from search_outbox_events where status = 'done' and result = 'applied')
      select count(*) as n, count(*) filter (where processed_at > first) / extract(epoch from max(processed_at) - min(processed_at))::float8 as rate from done`);
    if (Number(row?.n) !== count) throw new Error("not every event was applied");
    const us = (a: number, b: number) => ((b - a) / count) * 1e6;
    return {
      rate: row?.rate ?? Number.NaN,
      engineUs: us(before.engine, after.engine),
      workerUs: us(before.worker, after.worker),
      postgresUs: us(before.postgres, after.postgres),
      oursUs: us(before.worker + before.postgres, after.worker + after.postgres),
      metrics,
    };
  }

  await drain(warmUp);
  return {
    drain,
    close: async () => {
      goOn();
      await worker.stop();
      await index.close();
    },
  };
}

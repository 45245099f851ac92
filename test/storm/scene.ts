import { afterAll } from "bun:test";
import type { Client } from "@elastic/elasticsearch";
import { sql } from "drizzle-orm";
import type { Db } from "../../src/db/client.ts";
import { connectElasticsearch } from "../../src/search/client.ts";
import { ensureIndex } from "../../src/search/indices.ts";
import { cloneDatabase } from "../support/postgres.ts";
import { type Process, startWork } from "../support/processes.ts";

/** A number from the environment: the long forms of the storms are asked for with these. */
export function asked(name: string, otherwise: number): number {
  const text = process.env[name];
  if (text === undefined || text === "") return otherwise;
  if (!/^\d+$/.test(text)) throw new Error(`${name} wants a whole number`);
  return Number(text);
}

/** Numbers in [0, 1) from WORDLOOM_TEST_SEED, or from a seed of this run, which is printed (mulberry32). */
export function openDice(name: string): () => number {
  const seed = asked("WORDLOOM_TEST_SEED", crypto.getRandomValues(new Uint32Array(1))[0] ?? 1);
  process.stderr.write(`${name}: WORDLOOM_TEST_SEED=${seed}\n`);
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The entity of a number, the same one in JavaScript and in SQL (`md5('storm 7')::uuid`). */
export function entityId(n: number): string {
  const digits = new Bun.CryptoHasher("md5").update(`storm ${n}`).digest("hex");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

export const documentId = (n: number): string => `tag:${entityId(n)}`;

export type Worker = Process & { readonly id: string; readonly metricsUrl: string };

export type Scene = {
  readonly db: Db;
  readonly client: Client;
  readonly index: string;
  /** Events that were appended so far. */
  readonly appended: () => number;
  /** One transaction of a writer: each entity one version further, or deleted for good, with its event. One that is deleted already is left alone. */
  readonly change: (entities: readonly number[], deleted?: (n: number) => boolean) => Promise<void>;
  /** Events of a version that is long past, due within `seconds`. */
  readonly appendLate: (entities: readonly number[], seconds: number) => Promise<void>;
  /** Deletes of entities of which not even a tombstone is left. */
  readonly appendForgotten: (entities: readonly number[]) => Promise<void>;
  /** Rows that are not done. */
  readonly waiting: () => Promise<number>;
  /** `wordloom work --projection search`, alive, with leases of one second. */
  readonly startWorker: (id: string, environment?: Readonly<Record<string, string>>) => Promise<Worker>;
};

const leases = {
  OUTBOX_LEASE_SECONDS: "1",
  OUTBOX_RECLAIM_INTERVAL_SECONDS: "0.1",
  OUTBOX_POLL_INTERVAL_MS: "20",
};

/** History does not keep why an event was tried again: noted here, so that every attempt can be accounted for. */
async function recordRetries(db: Db): Promise<void> {
  await db.execute(sql`create table storm_retries (event_id bigint not null, reason text)`);
  await db.execute(sql`create index on storm_retries (event_id)`);
  await db.execute(sql`
    create function note_retry() returns trigger language plpgsql as
    'begin insert into storm_retries values (new.id, new.error_reason); return null; end'`);
  await db.execute(sql`
    create trigger note_retry after update on search_outbox_events_live for each row
      when (old.status = 'processing' and new.status = 'pending' and new.reclaim_count = old.reclaim_count and new.attempts = old.attempts)
      execute function note_retry()`);
}

/** A database, an index and a way to start workers between them. All of it is gone when the calling file's tests are over. */
export async function openScene(elasticUrl: string): Promise<Scene> {
  const clone = await cloneDatabase();
  const database = clone.open({ max: 6, statementTimeoutMs: 60_000 });
  const { db } = database;
  await recordRetries(db);
  const client = await connectElasticsearch({ url: elasticUrl, requestTimeoutMs: 20_000 });
  const index = `wordloom-test-storm-${crypto.randomUUID().slice(0, 8)}`;
  await ensureIndex(client, { alias: index, environment: "test" });
  const workers: Worker[] = [];
  const starting = new Set<Promise<Worker>>();
  afterAll(async () => {
    await Promise.allSettled(starting);
    for (const worker of workers) worker.kill("SIGKILL");
    await Promise.all(workers.map((w) => w.exited));
    await database.close();
    await clone.drop();
    await client.indices.delete({ index: `${index}-000001`, ignore_unavailable: true });
    await client.close();
  }, 60_000);

  let appended = 0;
  const count = async (statement: ReturnType<typeof sql>) => {
    const { length } = await db.execute(statement);
    appended += length;
  };
  return {
    db,
    client,
    index,
    appended: () => appended,
    change: (entities, deleted = () => false) =>
      // In the order of the keys, so that writers never wait for each other in a circle.
      count(sql`
        with changed as (
          insert into search_index as s (entity_type, entity_id, title, text, snippet, event_version, deleted_at)
          select 'tag', (e->>0)::uuid, 'storm', 'version 1', '', 1, case when (e->>1)::boolean then now() end
            from jsonb_array_elements(${JSON.stringify([...new Set(entities)].map((n) => [entityId(n), deleted(n)]))}::jsonb) e order by 2
              on conflict (entity_type, entity_id) do update
             set event_version = s.event_version + 1, text = 'version ' || s.event_version + 1, deleted_at = excluded.deleted_at, updated_at = now()
           where s.deleted_at is null
          returning s.entity_id, s.event_version, s.deleted_at)
        insert into search_outbox_events (entity_type, entity_id, op, event_version)
        select 'tag', entity_id, case when deleted_at is null then 'upsert' else 'delete' end, event_version from changed returning 1`),
    appendLate: (entities, seconds) =>
      count(sql`
        insert into search_outbox_events (entity_type, entity_id, op, event_version, next_retry_at)
        select 'tag', (e->>0)::uuid, 'upsert', 1, now() + (e->>1)::float8 * interval '1 second'
          from jsonb_array_elements(${JSON.stringify(entities.map((n, i) => [entityId(n), (seconds * i) / entities.length]))}::jsonb) e returning 1`),
    appendForgotten: (entities) =>
      count(sql`
        insert into search_outbox_events (entity_type, entity_id, op, event_version)
        select 'tag', (e#>>'{}')::uuid, 'delete', 9 from jsonb_array_elements(${JSON.stringify(entities.map(entityId))}::jsonb) e returning 1`),
    waiting: async () => {
      const [row] = await db.execute<{ n: string }>(sql`select count(*) as n from search_outbox_events_live`);
      return Number(row?.n);
    },
    startWorker: (id, environment = {}) => {
      const settings = { DATABASE_URL: clone.url, ELASTIC_URL: elasticUrl, ELASTIC_INDEX: index, LOG_LEVEL: "warn" };
      const started = startWork({ ...settings, ...leases, ...environment }, [
        "--worker-id",
        id,
        "--projection",
        "search",
      ]).then((work) => {
        const worker = { ...work, id };
        workers.push(worker);
        return worker;
      });
      starting.add(started);
      return started;
    },
  };
}

/** The sum of a metric's samples on a worker's /metrics. */
export async function readMetric({ metricsUrl }: Worker, name: string): Promise<number> {
  const text = await (await fetch(metricsUrl)).text();
  const samples = text.split("\n").filter((line) => line.startsWith(`${name}{`));
  if (samples.length === 0) throw new Error(`no ${name} at ${metricsUrl}`);
  return samples.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}

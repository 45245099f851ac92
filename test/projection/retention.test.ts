import { afterAll, expect, test } from "bun:test";
import { eq, sql } from "drizzle-orm";
import { PgDialect } from "drizzle-orm/pg-core";
import { searchIndex } from "../../src/db/schema.ts";
import { type Queue, queues } from "../../src/outbox/queue.ts";
import { startSweep } from "../../src/projection/sweep.ts";
import { recordSignals } from "../support/batch.ts";
import { intercept } from "../support/intercept.ts";
import { testDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";

const database = (await testDatabase()).open();
afterAll(() => database.close());
const { db } = database;

const options = {
  workerId: "w1",
  reclaimIntervalMs: 0,
  maxProcessingMs: 300_000,
  maxAttempts: 10,
  retentionHours: 168,
};

/** Sweeps a queue until `holds`, to the end of what is under way. */
async function sweep(queue: Queue, what: string, holds: () => Promise<boolean>): Promise<void> {
  const stop = startSweep(db, queue, options, recordSignals().signals, () => undefined);
  await until(what, holds);
  await stop();
}

const windows = async () =>
  Array.from(
    await db.execute<{ age: string }>(
      sql`select event_type as age from chronicle_event_dedupe_state group by 1 order by 1`,
    ),
    ({ age }) => age,
  );

test("windows of the chronicle that are long over go, however many, and those that may be open stay", async () => {
  const open = ["just now", "a day ago"];
  await db.execute(sql`
    insert into chronicle_event_dedupe_state (event_type, book_id, block_id, actor_id, window_seconds, last_bucket, updated_at)
    select age, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 86400, 1, now() - since
      from (values ('just now', interval '0'), ('a day ago', interval '25 hours'), ('three days ago', interval '3 days')) as s(age, since),
           generate_series(1, 5001)`);
  await sweep(queues.chronicle, "the old ones are gone", async () => !(await windows()).includes("three days ago"));
  expect(await windows()).toEqual(open.toSorted());
  const [kept] = await db.execute<{ n: number }>(sql`select count(*)::int as n from chronicle_event_dedupe_state`);
  expect(kept?.n).toBe(2 * 5001);
});

test("tombstones go when they are older than the retention and than every unfinished event, which could bring the entity back", async () => {
  await db.execute(sql`
    insert into search_index (entity_type, entity_id, title, text, snippet, event_version, deleted_at)
    select 'tag', gen_random_uuid(), title, '', '', 1, now() - since
      from (values ('live', null), ('recent', interval '1 hour'), ('after the event', interval '170 hours'), ('before the event', interval '200 hours')) as s(title, since)`);
  await db.execute(sql`
    insert into search_outbox_events (entity_type, entity_id, op, event_version, created_at) values ('tag', gen_random_uuid(), 'upsert', 1, now() - interval '180 hours')`);
  const left = async () =>
    Array.from(await db.execute<{ title: string }>(sql`select title from search_index order by title`), (r) => r.title);
  await sweep(queues.search, "the oldest is gone", async () => !(await left()).includes("before the event"));
  expect(await left()).toEqual(["after the event", "live", "recent"]);

  await db.execute(sql`delete from search_outbox_events`);
  await sweep(queues.search, "the next is gone", async () => !(await left()).includes("after the event"));
  expect(await left()).toEqual(["live", "recent"]);
});

test("tombstones go however many there are", async () => {
  await db.execute(sql`
    insert into search_index (entity_type, entity_id, title, text, snippet, event_version, deleted_at)
    select 'tag', gen_random_uuid(), 'many', '', '', 1, now() - interval '200 hours' from generate_series(1, 10001)`);
  const many = () => db.$count(searchIndex, eq(searchIndex.title, "many"));
  await sweep(queues.search, "all are gone", async () => (await many()) === 0);
  expect(await many()).toBe(0);
});

test("a stop waits for the step of a prune that is under way, and not for those after it", async () => {
  await db.execute(sql`
    insert into search_outbox_events_done (id, entity_type, entity_id, op, event_version, created_at, status, result, processed_at)
    select g, 'tag', gen_random_uuid(), 'upsert', 1, now() - interval '30 days', 'done', 'applied', now() - interval '30 days' from generate_series(1, 10001) g`);
  const count = async () =>
    (await db.execute<{ n: number }>(sql`select count(*)::int as n from search_outbox_events_done`))[0]?.n;
  const pruning = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  const gated = intercept(db, async (statement) => {
    if (new PgDialect().sqlToQuery(statement).sql.includes("as pruned")) {
      pruning.resolve();
      await go.promise;
    }
    return await db.execute(statement);
  });
  const stop = startSweep(gated, queues.search, options, recordSignals().signals, () => undefined);
  await pruning.promise;
  const stopped = stop();
  go.resolve();
  await stopped;
  expect(await count()).toBe(5001);
});

import { afterAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { queues } from "../../src/outbox/event.ts";
import { startSweep } from "../../src/projection/sweep.ts";
import { recordSignals } from "../support/batch.ts";
import { testDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";

const database = (await testDatabase()).open();
afterAll(() => database.close());
const { db } = database;

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
  const { signals } = recordSignals();
  const options = {
    workerId: "w1",
    reclaimIntervalMs: 0,
    maxProcessingMs: 300_000,
    maxAttempts: 10,
    retentionHours: 168,
  };
  const stop = startSweep(db, queues.chronicle, options, signals, () => undefined);
  await until("the old ones are gone", async () => !(await windows()).includes("three days ago"));
  await stop();
  expect(await windows()).toEqual(open.toSorted());
  const [kept] = await db.execute<{ n: number }>(sql`select count(*)::int as n from chronicle_event_dedupe_state`);
  expect(kept?.n).toBe(2 * 5001);
});

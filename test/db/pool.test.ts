import { afterEach, beforeEach, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import type { Database } from "../../src/db/client.ts";
import { databaseErrorCode, isUnavailable } from "../../src/db/failure.ts";
import { rejection } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";

const database = await testDatabase();
const poolTimeoutMs = 200;
let pool: Database;
beforeEach(() => {
  pool = database.open({ max: 2, poolTimeoutMs });
});
afterEach(() => pool.close());

/** Takes `count` connections for transactions that end when `release` is called. */
async function hold(count: number) {
  const end = Promise.withResolvers<void>();
  let held = 0;
  const holding = Array.from({ length: count }, () =>
    pool.db.transaction(async (tx) => {
      await tx.execute(sql`select 1`);
      held += 1;
      await end.promise;
    }),
  );
  await until("the connections are taken", () => held === count);
  return async () => {
    end.resolve();
    await Promise.all(holding);
  };
}

test("whoever finds no free connection waits no longer than the pool's deadline, then fails as unavailable and has begun nothing", async () => {
  const release = await hold(2);
  const from = performance.now();
  let begun = 0;
  const errors = await Promise.all([
    rejection(pool.db.execute(sql`select 1`)),
    rejection(
      pool.db.transaction(async () => {
        begun += 1;
        await Promise.resolve();
      }),
    ),
  ]);
  for (const error of errors) expect([databaseErrorCode(error), isUnavailable(error)]).toEqual(["POOL_TIMEOUT", true]);
  expect(begun).toBe(0);
  expect(performance.now() - from).toBeGreaterThanOrEqual(poolTimeoutMs - 1);
  await release();
  // Those who gave up hold nothing.
  await (await hold(2))();
  expect(pool.state()).toMatchObject({ used: 0, pending: 0 });
});

test("whoever comes first is served first, a transaction like a statement, also when one of them fails", async () => {
  const patient = database.open({ max: 1 });
  const order: string[] = [];
  const say = (what: string) => () => void order.push(what);
  await Promise.all([
    patient.db.execute(sql`select pg_sleep(0.05)`).then(say("statement")),
    patient.db.transaction((tx) => tx.execute(sql`select 1 / 0`)).catch(say("failed transaction")),
    patient.db.execute(sql`select 1 / 0`).catch(say("failed statement")),
    patient.db.transaction((tx) => tx.execute(sql`select 1`)).then(say("transaction")),
    patient.db.execute(sql`select 1`).then(say("last")),
  ]);
  expect(order).toEqual(["statement", "failed transaction", "failed statement", "transaction", "last"]);
  await patient.close();
});

test("a pool tells how many connections are in use and idle, and who waits", async () => {
  expect(pool.state()).toEqual({ max: 2, used: 0, idle: 0, pending: 0 });
  const unlisten = await pool.listen("channel", () => undefined);
  // A subscription's connection is none of the pool's.
  expect(pool.state()).toEqual({ max: 2, used: 0, idle: 0, pending: 0 });
  const one = await hold(1);
  expect(pool.state()).toEqual({ max: 2, used: 1, idle: 0, pending: 0 });
  const other = await hold(1);
  const late = pool.db.execute(sql`select 1`).then((rows) => rows.length);
  await until("it waits", () => pool.state().pending === 1);
  expect(pool.state()).toEqual({ max: 2, used: 2, idle: 0, pending: 1 });
  await other();
  expect(await late).toBe(1);
  expect(pool.state()).toEqual({ max: 2, used: 1, idle: 1, pending: 0 });
  await one();
  expect(pool.state()).toEqual({ max: 2, used: 0, idle: 2, pending: 0 });
  await unlisten();
  const killer = database.open({ max: 1 });
  await killer.db.execute(
    sql`select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`,
  );
  await until("lost connections are no longer idle", () => pool.state().idle === 0);
  await killer.close();
});

test("many more at once than there are connections are all served, none of them on a connection of another", async () => {
  const busy = database.open({ max: 3, poolTimeoutMs: 20_000 });
  const pids = await Promise.all(
    Array.from({ length: 200 }, (_, i) =>
      i % 2 === 0
        ? busy.db.execute<{ pid: number }>(sql`select pg_backend_pid() as pid`).then((rows) => [rows[0]?.pid])
        : busy.db.transaction(async (tx) => {
            const ask = () => tx.execute<{ pid: number; n: string }>(sql`select pg_backend_pid() as pid`);
            return (await Promise.all([ask(), ask()])).map((rows) => rows[0]?.pid);
          }),
    ),
  );
  for (const [first, second = first] of pids) expect(second).toBe(first);
  expect(new Set(pids.flat()).size).toBeLessThanOrEqual(3);
  expect(busy.state()).toMatchObject({ used: 0, pending: 0 });
  await busy.close();
});

test("a pool that is closed lets nobody wait", async () => {
  const closing = database.open({ max: 1, poolTimeoutMs: 20_000 });
  const errors = [closing.db.execute(sql`select pg_sleep(30)`), closing.db.execute(sql`select 1`)].map((work) =>
    rejection(work.then((rows) => rows)),
  );
  await until("one waits", () => closing.state().pending === 1);
  await closing.close();
  for (const error of await Promise.all(errors)) expect(isUnavailable(error)).toBe(true);
});

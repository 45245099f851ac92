import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { type Database, openDatabase } from "../../src/db/client.ts";
import { databaseErrorCode, isContention, isUnavailable } from "../../src/db/failure.ts";
import { rejection } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";
import { startProxy, type TcpProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";

const database = await testDatabase();
const direct = database.open({ max: 2 });
afterAll(() => direct.close());
await direct.db.execute(sql`create table written (by text)`);

let proxy: TcpProxy;
let pool: Database;
const statementTimeoutMs = 500;
/** What a silent server may cost: the statement timeout, a second of grace, and a slow machine. */
const patienceMs = 6000;
beforeEach(async () => {
  proxy = await startProxy(database.address);
  pool = openDatabase(proxy.address, { max: 2, applicationName: "behind a proxy", statementTimeoutMs, prepare: true });
  await pool.db.execute(sql`select 1`);
});
afterEach(async () => {
  await pool.close();
  await proxy.close();
});

/** What `work` is rejected with, which must be within the deadline. */
async function inTime(work: Promise<unknown>): Promise<unknown> {
  const late = Bun.sleep(patienceMs).then(() => {
    throw new Error("still waiting");
  });
  return await rejection(Promise.race([work, late]));
}

const works = async () => {
  proxy.pass();
  await until("the pool works again", () =>
    pool.db.execute(sql`select 1`).then(
      (rows) => rows.length === 1,
      () => false,
    ),
  );
};

test("a query on a half-open connection ends within its deadline as unavailable, and the pool goes on", async () => {
  proxy.swallow();
  const errors = await Promise.all([1, 2, 3].map(() => inTime(pool.db.execute(sql`select 1`))));
  for (const error of errors)
    expect([isUnavailable(error), databaseErrorCode(error)]).toEqual([true, expect.any(String)]);
  await works();
});

test("a BEGIN, a statement and a COMMIT that are never answered each end within the deadline, and leave nothing behind in the pool", async () => {
  for (const when of ["begin", "statement", "commit"]) {
    if (when === "begin") proxy.swallow();
    const failed = pool.db.transaction(async (tx) => {
      await tx.execute(sql`insert into written values (${when})`);
      if (when === "statement") proxy.swallow();
      await tx.execute(sql`select 1`);
      proxy.swallow();
    });
    expect([when, isUnavailable(await inTime(failed))]).toEqual([when, true]);
    await works();
  }
  // The server ends what nobody commits; here it hears that its peer is gone when the proxy drops it.
  proxy.reset();
  expect(await direct.db.execute(sql`select * from written`)).toHaveLength(0);
});

test("a query that was sent while another one was under way has a deadline of its own", async () => {
  const one = openDatabase(proxy.address, {
    max: 1,
    applicationName: "pipelined",
    statementTimeoutMs: 1000,
    prepare: false,
  });
  const failed = one.db.transaction(async (tx) => {
    // Inside a transaction the second is sent without waiting for the first. (drizzle sends nothing before somebody asks for the result.)
    const send = (seconds: number) =>
      tx.execute(sql`select pg_sleep(${sql.raw(String(seconds))})`).then((rows) => rows);
    const first = send(0.05);
    const second = send(0.5);
    await first;
    proxy.swallow();
    await second;
  });
  expect(isUnavailable(await inTime(failed))).toBe(true);
  await one.close();
}, 15_000);

test("a server that takes connections and never greets is unavailable within the time for connecting", async () => {
  proxy.swallow();
  const fresh = openDatabase(proxy.address, { max: 1, applicationName: "fresh", statementTimeoutMs, prepare: true });
  for (let i = 0; i < 2; i += 1) expect(isUnavailable(await inTime(fresh.db.execute(sql`select 1`)))).toBe(true);
  proxy.pass();
  expect(await fresh.db.execute(sql`select 1`)).toHaveLength(1);
  await fresh.close();
});

test("an answer that breaks off in the middle is a lost connection, not a short answer", async () => {
  for (const bytes of [1, 5, 40, 2000]) {
    proxy.cutAfter(bytes);
    expect(
      isUnavailable(await inTime(pool.db.execute(sql`select n, repeat('x', 100) from generate_series(1, 200) n`))),
    ).toBe(true);
    await works();
  }
});

test("a slow answer that keeps coming is waited for", async () => {
  proxy.delay(300);
  expect(await pool.db.execute(sql`select n from generate_series(1, 1000) n`)).toHaveLength(1000);
});

test("a statement that takes too long is ended by the server and counts as contention", async () => {
  const error = await inTime(pool.db.execute(sql`select pg_sleep(60)`));
  expect([databaseErrorCode(error), isContention(error)]).toEqual(["57014", true]);
});

test("deadlocks, serialization failures and locks that cannot be had are contention", async () => {
  await direct.db.execute(sql`create table locked (id int primary key, n int)`);
  await direct.db.execute(sql`insert into locked values (1, 0), (2, 0)`);
  const slow = database.open({ max: 3, statementTimeoutMs: 20_000 });
  const cross = (first: number, second: number, met: Promise<void>, meet: () => void) =>
    slow.db.transaction(async (tx) => {
      await tx.execute(sql`update locked set n = n + 1 where id = ${first}`);
      meet();
      await met;
      await tx.execute(sql`update locked set n = n + 1 where id = ${second}`);
    });
  const [a, b] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const ends = await Promise.allSettled([cross(1, 2, b.promise, a.resolve), cross(2, 1, a.promise, b.resolve)]);
  const deadlock = ends.flatMap((e) => (e.status === "rejected" ? [e.reason as unknown] : []));
  expect(deadlock.map((e) => [databaseErrorCode(e), isContention(e)])).toEqual([["40P01", true]]);

  await slow.db.transaction(async (tx) => {
    await tx.execute(sql`update locked set n = 9 where id = 1`);
    const refused = await rejection(slow.db.execute(sql`select 1 from locked where id = 1 for update nowait`));
    expect([databaseErrorCode(refused), isContention(refused)]).toEqual(["55P03", true]);
  });

  const stale = await rejection(
    slow.db.transaction(
      async (tx) => {
        await tx.execute(sql`select n from locked where id = 1`);
        await direct.db.execute(sql`update locked set n = 100 where id = 1`);
        await tx.execute(sql`update locked set n = n + 1 where id = 1`);
      },
      { isolationLevel: "repeatable read" },
    ),
  );
  expect([databaseErrorCode(stale), isContention(stale)]).toEqual(["40001", true]);
  await slow.close();
});

test("a subscription whose connection was lost, or is half-open, is made anew and hears again", async () => {
  let heard = 0;
  const unlisten = await pool.listen(
    "channel",
    () => {
      heard += 1;
    },
    100,
  );
  const hears = async (what: string) => {
    await until(what, async () => {
      const before = heard;
      await direct.db.execute(sql`select pg_notify('channel', '')`);
      return await until("heard", () => heard > before, 200).catch(() => false);
    });
  };
  await hears("a NOTIFY is heard");
  proxy.reset();
  await hears("a NOTIFY is heard after a reset");
  proxy.swallow();
  const before = heard;
  proxy.pass();
  // The old connection stays silent: only the check can find that out.
  await until("the subscription is made anew", () => heard > before);
  await hears("a NOTIFY is heard after a silence");
  await unlisten();
});

import { afterAll, beforeEach, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import type { Lease } from "../../src/events.ts";
import { appending } from "../../src/outbox/append.ts";
import { openClaim, renew } from "../../src/outbox/claim.ts";
import { queues } from "../../src/outbox/queue.ts";
import { settle } from "../../src/outbox/settle.ts";
import { intercept } from "../support/intercept.ts";
import { testDatabase } from "../support/postgres.ts";
import { all, applied, empty, enqueue, leasesOf, newEvents, rowsOf } from "../support/queue.ts";

const database = await testDatabase();
const { db, close } = database.open({ max: 8 });
afterAll(close);
const queue = queues.search;
beforeEach(() => empty(db, queue));

const options = { owner: "w1", leaseMs: 30_000 };
const idsOf = (lease: Lease | null) => lease?.events.map((e) => e.id) ?? [];
const allIds = async () =>
  (
    await db.execute<{ id: string }>(sql`select id::text from search_outbox_events order by search_outbox_events.id`)
  ).map((r) => BigInt(r.id));

test("the lanes take turns in going first, and the other one fills up what is left", async () => {
  await enqueue(db, queue, newEvents(20));
  const ids = await allIds();
  const retries = ids.slice(0, 10);
  await db.execute(
    sql`update search_outbox_events_live set next_retry_at = now() - interval '1 minute' - id * interval '1 ms' where id <= ${String(retries[9])}::bigint`,
  );
  const claim = openClaim(db, queue, options);
  const fresh = ids.slice(10);
  // The longest overdue first: here those with the highest ids. Within a batch they come by id.
  expect(idsOf(await claim(6))).toEqual(retries.slice(4));
  expect(idsOf(await claim(6))).toEqual(fresh.slice(0, 6));
  expect(idsOf(await claim(6))).toEqual([...retries.slice(0, 4), ...fresh.slice(6, 8)]);
  expect(idsOf(await claim(6))).toEqual(fresh.slice(8));
  expect(await claim(6)).toBeNull();
});

test("a batch comes in the order of its ids, also where they get one digit longer", async () => {
  await db.execute(sql`select setval('search_outbox_events_id_seq', 9995, true)`);
  const entityId = crypto.randomUUID();
  await enqueue(db, queue, newEvents(10, { entityId }));
  const lease = await openClaim(db, queue, options)(10);
  expect(idsOf(lease)).toEqual(Array.from({ length: 10 }, (_, i) => BigInt(9996 + i)));
  expect(lease?.events.map((e) => e.eventVersion)).toEqual(Array.from({ length: 10 }, (_, i) => BigInt(i + 1)));
});

test("what is not due yet is left alone", async () => {
  await enqueue(db, queue, newEvents(2));
  await db.execute(sql`update search_outbox_events_live set next_retry_at = now() + interval '1 minute'`);
  expect(await openClaim(db, queue, options)(10)).toBeNull();
});

test("a claim names its worker and its batch, counts the attempt and leases by the clock of Postgres", async () => {
  await enqueue(db, queue, newEvents(1));
  const lease = await openClaim(db, queue, options)(10);
  const [row] = (await rowsOf(db, queue)).values();
  expect(row).toMatchObject({ status: "processing", owner: "w1", attempts: 1, counted_attempts: 0, leased: true });
  expect(row?.claim_batch_id).toBe(lease?.claimBatchId ?? "");
  const [{ seconds } = { seconds: 0 }] = await db.execute<{ seconds: number }>(
    sql`select extract(epoch from lease_until - processing_started_at)::float8 as seconds from search_outbox_events_live`,
  );
  expect(seconds).toBe(30);
});

test("four claimers at once never get a row twice, never more than they asked for, and never SQLSTATE 40001 from rows on their way to history", async () => {
  await enqueue(db, queue, newEvents(3000));
  const taken: bigint[] = [];
  const work = async (owner: string, limit: number) => {
    const claim = openClaim(db, queue, { owner, leaseMs: 30_000 });
    for (let lease = await claim(limit); lease !== null; lease = await claim(limit)) {
      expect(lease.events.length).toBeLessThanOrEqual(limit);
      taken.push(...idsOf(lease));
      expect((await settle(db, queue, lease, all(lease, applied))).size).toBe(lease.events.length);
    }
  };
  await Promise.all([work("w1", 7), work("w2", 13), work("w3", 50), work("w4", 31)]);
  expect(taken.length).toBe(3000);
  expect(new Set(taken).size).toBe(3000);
  expect(new Set(Array.from((await rowsOf(db, queue)).values(), (r) => r.status))).toEqual(new Set(["done"]));
});

test("a row that another transaction has locked is passed over, not waited for", async () => {
  await enqueue(db, queue, newEvents(3));
  const [first] = await allIds();
  await db.transaction(async (tx) => {
    await tx.execute(sql`select 1 from search_outbox_events_live where id = ${String(first)}::bigint for update`);
    expect(idsOf(await openClaim(db, queue, options)(10))).not.toContain(first ?? 0n);
  });
});

test("a claim whose atomicity is broken takes what others hold, but never revives what failed in between", async () => {
  await enqueue(db, queue, newEvents(3));
  const [failed] = await allIds();
  const chosen = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  let statements = 0;
  const gated = intercept(db, async (statement) => {
    statements += 1;
    if (statements === 1) return await db.execute(statement).finally(chosen.resolve);
    await go.promise;
    return await db.execute(statement);
  });
  const broken = openClaim(gated, queue, { ...options, owner: "broken", breakClaimMs: 0 })(10);
  await chosen.promise;
  const lease = await openClaim(db, queue, { ...options, owner: "atomic" })(10);
  if (lease === null) throw new Error("nothing was claimed");
  await settle(
    db,
    queue,
    lease,
    new Map([[failed ?? 0n, { kind: "fail", reason: "es_4xx", error: "bad", sent: true }]]),
  );
  go.resolve();
  expect(idsOf(await broken)).toEqual(idsOf(lease).slice(1));
  expect((await settle(db, queue, lease, all(lease, applied))).size).toBe(0);
  expect((await rowsOf(db, queue)).get(failed ?? 0n)?.status).toBe("failed");
});

test("a renewal extends the lease, but never past the longest processing time", async () => {
  await enqueue(db, queue, newEvents(3));
  const lease = await openClaim(db, queue, options)(10);
  if (lease === null) throw new Error("nothing was claimed");
  const leftSeconds = async () =>
    (
      await db.execute<{ s: number }>(
        sql`select extract(epoch from lease_until - processing_started_at)::float8 as s from search_outbox_events_live limit 1`,
      )
    )[0]?.s ?? 0;
  const before = performance.now();
  expect(await renew(db, queue, lease, 60_000, 300_000)).toBe(3);
  expect(await leftSeconds()).toBeGreaterThan(60);
  expect(lease.expiresAt).toBeGreaterThanOrEqual(before + 60_000);

  await db.execute(sql`update search_outbox_events_live set processing_started_at = now() - interval '290 seconds'`);
  expect(await renew(db, queue, lease, 60_000, 300_000)).toBe(3);
  expect(await leftSeconds()).toBe(300);
  expect(lease.expiresAt).toBeLessThan(performance.now() + 10_001);

  await db.execute(sql`update search_outbox_events_live set processing_started_at = now() - interval '301 seconds'`);
  expect(await renew(db, queue, lease, 60_000, 300_000)).toBe(0);
});

test("a renewal of a batch that lost rows says so and leaves what it knew of its end", async () => {
  await enqueue(db, queue, newEvents(3));
  const lease = await openClaim(db, queue, options)(10);
  if (lease === null) throw new Error("nothing was claimed");
  const [lost] = idsOf(lease);
  await db.execute(
    sql`update search_outbox_events_live set claim_batch_id = gen_random_uuid(), owner = 'other' where id = ${String(lost)}::bigint`,
  );
  const { expiresAt } = lease;
  expect(await renew(db, queue, lease, 60_000, 300_000)).toBe(2);
  expect(lease.expiresAt).toBe(expiresAt);
});

test("what a claim took whose answer was lost is given back by the next claim, without costing an attempt", async () => {
  await enqueue(db, queue, newEvents(3));
  let lose = true;
  const losing = intercept(db, async (statement) => {
    const rows = await db.execute(statement);
    if (lose) throw new Error("the connection was lost");
    return rows;
  });
  const claim = openClaim(losing, queue, options);
  const lost = await claim(10).catch((error: unknown) => error);
  expect(lost).toBeInstanceOf(Error);
  expect(Array.from((await rowsOf(db, queue)).values(), (r) => r.status)).toEqual(Array(3).fill("processing"));
  lose = false;
  const again = await claim(10);
  expect(again?.events.map((e) => e.attempts)).toEqual([1, 1, 1]);
  expect(await leasesOf(db, queue)).toEqual([again?.claimBatchId ?? ""]);
});

test("a claim rewrites its rows where they are and leaves the indexes alone, also those of full rows", async () => {
  const single = database.open({ max: 1 });
  try {
    const traceparent = `00-${"a".repeat(32)}-${"b".repeat(16)}-01`;
    const traced = sql`select 'block', gen_random_uuid(), 'upsert', n, ${traceparent}, null from generate_series(1, 3000) n`;
    await single.db.execute(appending(queue, traced));
    const counts = async () => {
      await single.db.execute(sql`select pg_stat_force_next_flush()`);
      const [row] = await single.db.execute<{ updated: number; hot: number }>(
        sql`select n_tup_upd::int as updated, n_tup_hot_upd::int as hot from pg_stat_user_tables where relname = 'search_outbox_events_live'`,
      );
      return row ?? { updated: 0, hot: 0 };
    };
    const before = await counts();
    const claim = openClaim(single.db, queue, { ...options, owner: "a-host.example:worker-1" });
    for (let i = 0; i < 6; i += 1) expect((await claim(500))?.events.length).toBe(500);
    const after = await counts();
    expect(after.updated - before.updated).toBe(3000);
    expect(after.hot - before.hot).toBeGreaterThan(2900);
  } finally {
    await single.close();
  }
});

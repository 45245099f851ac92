import { expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { type Lease, type Outcome, results } from "../../src/events.ts";
import { openClaim, renew } from "../../src/outbox/claim.ts";
import { hasten } from "../../src/outbox/hasten.ts";
import { queues } from "../../src/outbox/queue.ts";
import { reclaim } from "../../src/outbox/reclaim.ts";
import { settle } from "../../src/outbox/settle.ts";
import { intercept } from "../support/intercept.ts";
import { openQueue } from "../support/open-queue.ts";
import { all, applied, enqueue, expire, leasesOf, newEvents, rowsOf } from "../support/queue.ts";
import { until } from "../support/until.ts";

const queue = queues.search;
const { db } = await openQueue(queue);

const claim = async (owner: string, limit = 100): Promise<Lease> => {
  const lease = await openClaim(db, queue, { owner, leaseMs: 30_000 })(limit);
  if (lease === null) throw new Error("nothing was claimed");
  return lease;
};
const rowsById = () => rowsOf(db, queue);

const retry = (over: Partial<Extract<Outcome, { kind: "retry" }>> = {}): Outcome => ({
  kind: "retry",
  reason: "es_429",
  error: "full",
  delayMs: 60_000,
  counted: false,
  sent: true,
  ...over,
});
const fail: Outcome = { kind: "fail", reason: "es_4xx", error: "no such field", sent: true };

/** Each way an event can end, and what its row says afterwards. */
const endings: [string, Outcome, Record<string, unknown>][] = [
  ...results.map((result): [string, Outcome, Record<string, unknown>] => [
    `done (${result})`,
    { kind: "done", result, sent: true },
    { status: "done", result, attempts: 1, counted_attempts: 0, owner: "w1", error_reason: null },
  ]),
  [
    "done without a send of its own",
    { kind: "done", result: "superseded", sent: false },
    { status: "done", result: "superseded", attempts: 0 },
  ],
  [
    "retry that does not count",
    retry(),
    { status: "pending", attempts: 1, counted_attempts: 0, error_reason: "es_429", error: "full", owner: null },
  ],
  [
    "retry that counts",
    retry({ counted: true, reason: "es_unknown" }),
    { status: "pending", attempts: 1, counted_attempts: 1, error_reason: "es_unknown" },
  ],
  [
    "retry before anything was sent",
    retry({ sent: false, reason: "db_contention" }),
    { status: "pending", attempts: 0, counted_attempts: 0, error_reason: "db_contention" },
  ],
  [
    "fail",
    fail,
    {
      status: "failed",
      attempts: 1,
      counted_attempts: 1,
      error_reason: "es_4xx",
      error: "no such field",
      due_in_ms: null,
      owner: null,
    },
  ],
  ["fail before anything was sent", { ...fail, sent: false }, { status: "failed", attempts: 0, counted_attempts: 0 }],
  [
    "release",
    { kind: "release" },
    { status: "pending", attempts: 0, counted_attempts: 0, error_reason: null, owner: null, claim_batch_id: null },
  ],
];

test.each(endings)("%s is written to the row", async (_, outcome, expected) => {
  await enqueue(db, queue, newEvents(2));
  const lease = await claim("w1");
  const [mine, other] = lease.events;
  expect(await settle(db, queue, lease, new Map([[mine?.id ?? 0n, outcome]]))).toEqual(new Set([mine?.id ?? 0n]));
  const rows = await rowsById();
  expect(rows.get(mine?.id ?? 0n)).toMatchObject(expected);
  expect(rows.get(mine?.id ?? 0n)?.leased).toBe(false);
  expect(rows.get(other?.id ?? 0n)).toMatchObject({ status: "processing", claim_batch_id: lease.claimBatchId });
  const delay = rows.get(mine?.id ?? 0n)?.due_in_ms;
  if (outcome.kind === "retry") expect(delay).toBeGreaterThan(30_000);
  if (outcome.kind === "release") expect(delay).toBeLessThanOrEqual(0);
});

test("a batch with every kind of outcome settles in one statement, and history keeps what the row was", async () => {
  await enqueue(db, queue, newEvents(endings.length));
  const lease = await claim("w1");
  const outcomes = new Map(lease.events.map((e, i) => [e.id, endings[i]?.[1] ?? applied]));
  let statements = 0;
  const counted = intercept(db, (statement) => {
    statements += 1;
    return db.execute(statement);
  });
  expect((await settle(counted, queue, lease, outcomes)).size).toBe(endings.length);
  expect(statements).toBe(1);
  const rows = await rowsById();
  for (const [i, e] of lease.events.entries()) expect(rows.get(e.id)).toMatchObject(endings[i]?.[2] ?? {});
  const [same] = await db.execute<{ same: boolean }>(sql`
    select bool_and(claim_batch_id = ${lease.claimBatchId}::uuid and processed_at >= created_at and lease_until is null and next_retry_at is null) as same
      from search_outbox_events_done`);
  expect(same?.same).toBe(true);
});

test.each(endings)("a worker that lost its lease touches nothing: %s", async (_, outcome) => {
  await enqueue(db, queue, newEvents(3));
  const zombie = await claim("w1");
  await expire(db, queue, zombie);
  await reclaim(db, queue, "sweep", 600_000, 10);
  const before = await rowsById();
  expect(await settle(db, queue, zombie, all(zombie, outcome))).toEqual(new Set());
  const still = (rows: Awaited<ReturnType<typeof rowsById>>) =>
    Array.from(rows.values(), (r) => ({ ...r, due_in_ms: null }));
  expect(still(await rowsById())).toEqual(still(before));

  const heir = await claim("w2");
  expect(heir.events.map((e) => e.id)).toEqual(zombie.events.map((e) => e.id));
  expect(await settle(db, queue, zombie, all(zombie, outcome))).toEqual(new Set());
  expect(await renew(db, queue, zombie, 30_000, 600_000)).toBe(0);
  for (const row of (await rowsById()).values())
    expect(row).toMatchObject({ status: "processing", owner: "w2", attempts: 2, claim_batch_id: heir.claimBatchId });

  await settle(db, queue, heir, all(heir, applied));
  expect(await settle(db, queue, zombie, all(zombie, outcome))).toEqual(new Set());
  for (const row of (await rowsById()).values())
    expect(row).toMatchObject({ status: "done", owner: "w2", attempts: 2 });
});

test("of a batch that was lost in part the rest is settled, and the lost ids are missing from the answer", async () => {
  await enqueue(db, queue, newEvents(6));
  const first = await claim("w1");
  const lost = first.events.filter((_, i) => i % 2 === 0).map((e) => e.id);
  await db.execute(
    sql`update search_outbox_events_live set lease_until = now() - interval '1 s' where id = any(${`{${lost.join(",")}}`}::bigint[])`,
  );
  await reclaim(db, queue, "sweep", 600_000, 10);
  const second = await claim("w2");
  expect(second.events.map((e) => e.id)).toEqual(lost);
  expect(await renew(db, queue, first, 30_000, 600_000)).toBe(3);
  const outcomes = new Map(first.events.map((e, i) => [e.id, i < 3 ? applied : fail]));
  const settled = await settle(db, queue, first, outcomes);
  expect(settled).toEqual(new Set(first.events.map((e) => e.id).filter((id) => !lost.includes(id))));
  const rows = await rowsById();
  for (const id of lost) expect(rows.get(id)).toMatchObject({ status: "processing", owner: "w2" });
});

test.each(endings)("a settle whose answer was lost is told as ours when it is made again: %s", async (_, outcome) => {
  await enqueue(db, queue, newEvents(3));
  const lease = await claim("w1");
  await settle(db, queue, lease, all(lease, outcome));
  const before = await rowsById();
  expect(await settle(db, queue, lease, all(lease, outcome), true)).toEqual(new Set(before.keys()));
  // Whoever claims them again does not make the answer another one.
  const heir = await openClaim(db, queue, { owner: "w2", leaseMs: 30_000 })(10);
  expect(await settle(db, queue, lease, all(lease, outcome), true)).toEqual(new Set(before.keys()));
  for (const e of heir?.events ?? [])
    expect((await rowsById()).get(e.id)).toMatchObject({ status: "processing", owner: "w2" });
});

test("a settle that is made again while the first is still under way waits for it, and is told as ours", async () => {
  await enqueue(db, queue, newEvents(endings.length));
  const lease = await claim("w1");
  const outcomes = new Map(lease.events.map((e, i) => [e.id, endings[i]?.[1] ?? applied]));
  let second: Promise<Set<bigint>> | undefined;
  await db.transaction(async (tx) => {
    await settle(
      intercept(db, (statement) => tx.execute(statement)),
      queue,
      lease,
      outcomes,
    );
    second = settle(db, queue, lease, outcomes, true);
    await until("the second waits", async () => {
      const waiting = await db.execute(
        sql`select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      );
      return waiting.length > 0;
    });
  });
  expect(await second).toEqual(new Set(outcomes.keys()));
});

test.each(endings)(
  "a settle that never came through settles when it is made again: %s",
  async (_, outcome, expected) => {
    await enqueue(db, queue, newEvents(2));
    const lease = await claim("w1");
    expect((await settle(db, queue, lease, all(lease, outcome), true)).size).toBe(2);
    for (const row of (await rowsById()).values()) expect(row).toMatchObject(expected);
  },
);

test.each(endings)("what was lost before the first settle is not ours in the second: %s", async (_, outcome) => {
  await enqueue(db, queue, newEvents(3));
  const zombie = await claim("w1");
  await expire(db, queue, zombie);
  zombie.expiresAt = performance.now();
  await reclaim(db, queue, "sweep", 600_000, 10);
  expect(await settle(db, queue, zombie, all(zombie, outcome), true)).toEqual(new Set());
  const heir = await claim("w2");
  expect(await settle(db, queue, zombie, all(zombie, outcome), true)).toEqual(new Set());
  await settle(db, queue, heir, all(heir, applied));
  expect(await settle(db, queue, zombie, all(zombie, outcome), true)).toEqual(new Set());
});

test("of a settle that was lost after the lease had run out, what is done is still told as ours", async () => {
  await enqueue(db, queue, newEvents(2));
  const lease = await claim("w1");
  const outcomes = lease.events.map((e, i) => [e.id, i === 0 ? applied : retry()] as const);
  await settle(db, queue, lease, outcomes);
  lease.expiresAt = performance.now();
  expect(await settle(db, queue, lease, outcomes, true)).toEqual(new Set([outcomes[0]?.[0] ?? 0n]));
});

test("a lease is forgotten with its last event: what is left out of a settle is still found when it lapses", async () => {
  await enqueue(db, queue, newEvents(4));
  const lease = await claim("w1");
  const [first, ...others] = lease.events.map((e) => e.id);
  await settle(db, queue, lease, new Map([[first ?? 0n, applied]]));
  expect(await leasesOf(db, queue)).toEqual([lease.claimBatchId]);
  await expire(db, queue, lease);
  expect((await reclaim(db, queue, "sweep", 600_000, 10)).map((r) => r.id)).toEqual(others);

  const heir = await claim("w2");
  await settle(db, queue, heir, new Map(heir.events.map((e, i) => [e.id, i === 0 ? applied : fail])));
  expect((await leasesOf(db, queue)).includes(heir.claimBatchId)).toBe(false);
});

test("a lease that was renewed after it ran out, before anybody took it, still settles", async () => {
  await enqueue(db, queue, newEvents(1));
  const lease = await claim("w1");
  await expire(db, queue, lease);
  expect(await renew(db, queue, lease, 30_000, 600_000)).toBe(1);
  expect(await reclaim(db, queue, "sweep", 600_000, 10)).toEqual([]);
  expect((await settle(db, queue, lease, all(lease, applied))).size).toBe(1);
});

test("an event that is released again and again counts only what was sent", async () => {
  await enqueue(db, queue, newEvents(1));
  for (const outcome of [
    { kind: "release" } as const,
    retry({ delayMs: 0 }),
    { kind: "release" } as const,
    retry({ delayMs: 0, sent: false }),
  ]) {
    const lease = await claim("w1");
    await settle(db, queue, lease, all(lease, outcome));
  }
  const lease = await claim("w1");
  expect(lease.events[0]?.attempts).toBe(2);
  await settle(db, queue, lease, all(lease, applied));
  expect(Array.from((await rowsById()).values(), (r) => r.attempts)).toEqual([2]);
});

test("an error of any length and content fits, and the reason of the last failure stays on a row that is released", async () => {
  await enqueue(db, queue, newEvents(1));
  const error = `"quote" \\ {"a":1} 所有权 ${"x".repeat(20_000)}`;
  const first = await claim("w1");
  await settle(db, queue, first, all(first, retry({ error, delayMs: 0 })));
  const second = await claim("w1");
  await settle(db, queue, second, all(second, { kind: "release" }));
  const [row] = (await rowsById()).values();
  expect(row).toMatchObject({ error_reason: "es_429", error: error.slice(0, 8000) });
});

test("what waits for a reason that is over becomes due, the next ones first and no more than asked for", async () => {
  await enqueue(db, queue, newEvents(6));
  const lease = await claim("w1");
  await settle(
    db,
    queue,
    lease,
    new Map(
      lease.events.map((e, i) => [
        e.id,
        retry({ reason: i < 4 ? "es_connect" : "es_unknown", delayMs: 600_000 - i * 60_000 }),
      ]),
    ),
  );
  const ids = lease.events.map((e) => e.id);
  const dueIds = async () => Array.from(await rowsById()).flatMap(([id, r]) => ((r.due_in_ms ?? 1) <= 0 ? [id] : []));
  expect(await hasten(db, queue, ["es_connect"], 1, 0)).toBe(1);
  expect(await dueIds()).toEqual(ids.slice(3, 4));
  expect(await hasten(db, queue, ["es_connect", "es_429"], 10, 0)).toBe(3);
  expect(new Set(await dueIds())).toEqual(new Set(ids.slice(0, 4)));
  expect(await hasten(db, queue, ["es_connect"], 10, 0)).toBe(0);
});

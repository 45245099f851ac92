import { expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import type { NewEvent } from "../../src/events.ts";
import { openClaim } from "../../src/outbox/claim.ts";
import { queues } from "../../src/outbox/queue.ts";
import { type ReplayRequest, replay, replayable } from "../../src/outbox/replay.ts";
import { settle } from "../../src/outbox/settle.ts";
import { intercept } from "../support/intercept.ts";
import { openQueue } from "../support/open-queue.ts";
import { all, enqueue, newEvents, rowsOf } from "../support/queue.ts";

const queue = queues.search;
const { db } = await openQueue(queue);

const asked: ReplayRequest = { by: "operator", reason: "the mapping is mended", limit: 100 };

/** Events that failed for good; their ids. */
async function failed(events: readonly NewEvent[]): Promise<bigint[]> {
  await enqueue(db, queue, events);
  const lease = await openClaim(db, queue, { owner: "w1", leaseMs: 30_000 })(events.length);
  if (lease === null) throw new Error("nothing was claimed");
  await settle(
    db,
    queue,
    lease,
    all(lease, { kind: "retry", reason: "es_unknown", error: "?", delayMs: 0, counted: true, sent: true }),
  );
  const again = await openClaim(db, queue, { owner: "w1", leaseMs: 30_000 })(events.length);
  if (again === null) throw new Error("nothing was claimed");
  await settle(db, queue, again, all(again, { kind: "fail", reason: "es_4xx", error: "no such field", sent: true }));
  return again.events.map((e) => e.id);
}
const audit = () =>
  db.execute<{
    event_id: string;
    replayed_by: string;
    reason: string;
    error_reason: string;
    error: string;
    attempts: number;
    projection: string;
  }>(
    sql`select event_id::text, replayed_by, reason, error_reason, error, attempts, projection from outbox_replays order by outbox_replays.event_id`,
  );

test("a replay puts failed events back, with an audit row each in the same statement; attempts go on, what counts starts anew", async () => {
  const ids = await failed(newEvents(3));
  let statements = 0;
  const counted = intercept(db, (statement) => {
    statements += 1;
    return db.execute(statement);
  });
  expect(await replay(counted, queue, asked)).toEqual(ids);
  expect(statements).toBe(1);
  for (const row of (await rowsOf(db, queue)).values())
    expect(row).toMatchObject({
      status: "pending",
      attempts: 2,
      counted_attempts: 0,
      reclaim_count: 0,
      replay_count: 1,
      last_replayed_by: "operator",
      last_replayed_reason: "the mapping is mended",
    });
  expect((await audit()).map((a) => ({ ...a }))).toEqual(
    ids.map((id) => ({
      event_id: id.toString(),
      replayed_by: "operator",
      reason: "the mapping is mended",
      error_reason: "es_4xx",
      error: "no such field",
      attempts: 2,
      projection: queue.projection,
    })),
  );
  expect((await openClaim(db, queue, { owner: "w1", leaseMs: 1000 })(10))?.events.map((e) => e.attempts)).toEqual([
    3, 3, 3,
  ]);
});

test("a failed event is never claimed, reclaimed or settled back to life: only a replay revives it", async () => {
  const ids = await failed(newEvents(2));
  expect(await openClaim(db, queue, { owner: "w1", leaseMs: 1000 })(10)).toBeNull();
  expect(await replay(db, queue, { ...asked, ids: [] })).toEqual([]);
  expect(await replay(db, queue, { ...asked, ids: ids.slice(0, 1) })).toEqual(ids.slice(0, 1));
  expect((await audit()).length).toBe(1);
  expect(Array.from((await rowsOf(db, queue)).values(), (r) => r.status).toSorted()).toEqual(["failed", "pending"]);
});

test("a replay that cannot write its audit rows revives nothing", async () => {
  await failed(newEvents(2));
  const refused = replay(db, queue, { ...asked, by: "x".repeat(200) });
  expect(
    await refused.then(
      () => "replayed",
      () => "refused",
    ),
  ).toBe("refused");
  expect(Array.from((await rowsOf(db, queue)).values(), (r) => r.status)).toEqual(["failed", "failed"]);
});

test("the limit holds, the oldest go first, and the dry list is what is replayed", async () => {
  const ids = await failed([...newEvents(4), ...newEvents(4, { entityType: "book" })]);
  await db.execute(
    sql`update search_outbox_events_live set updated_at = now() - interval '3 hours' where id <= ${String(ids[1])}::bigint`,
  );
  const requests: [ReplayRequest, bigint[]][] = [
    [{ ...asked, entityType: "book", limit: 2 }, ids.slice(4, 6)],
    [{ ...asked, sinceHours: 1, limit: 3 }, [...ids.slice(2, 4), ...ids.slice(6, 7)]],
    [{ ...asked, ids: ids.slice(1, 4) }, ids.slice(1, 2)],
    [asked, [...ids.slice(0, 1), ...ids.slice(7)]],
  ];
  for (const [request, expected] of requests) {
    const dry = await replayable(db, queue, request);
    expect(dry).toEqual(expected);
    expect(await replay(db, queue, request)).toEqual(dry);
  }
  expect((await audit()).length).toBe(8);
});

test("two replays at the same time revive each event once", async () => {
  const ids = await failed(newEvents(200));
  const both = await Promise.all([replay(db, queue, asked), replay(db, queue, asked)]);
  const left = await replay(db, queue, { ...asked, limit: 1000 });
  expect([...both.flat(), ...left].toSorted((a, b) => Number(a - b))).toEqual(ids);
  expect((await audit()).length).toBe(200);
});

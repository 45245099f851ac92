import { expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { queues } from "../../src/outbox/queue.ts";
import { intercept } from "../support/intercept.ts";
import { openQueue } from "../support/open-queue.ts";
import { applied, enqueue, newEvents, rowsOf } from "../support/queue.ts";
import { until } from "../support/until.ts";
import { heldProjection, startWorker } from "../support/worker.ts";

const queue = queues.search;
const database = await openQueue(queue, { max: 8 });
const { db } = database;
const statuses = async () => Array.from((await rowsOf(db, queue)).values(), (r) => `${r.status} ${r.attempts}`);

test("a worker that is told to stop claims no more, finishes what it has sent, and gives back what it has not without costing an attempt", async () => {
  await enqueue(db, queue, newEvents(20));
  const { projection, sent } = heldProjection();
  const worker = startWorker(database, projection);
  // One batch is on its way and the next one is built.
  await until(
    "two batches are in hand",
    async () => sent.length === 1 && (await statuses()).filter((s) => s === "processing 1").length === 10,
  );
  const ended = worker.end();
  await until(
    "the batch that was not sent is given back",
    async () => (await statuses()).filter((s) => s === "pending 0").length === 15,
  );
  expect(sent[0]?.signal.aborted).toBe(false);
  sent[0]?.answer(applied);
  await ended;
  expect((await statuses()).toSorted()).toEqual([...Array(5).fill("done 1"), ...Array(15).fill("pending 0")]);
  expect(sent).toHaveLength(1);
});

test("what is still on its way when the grace ends is cut off, and is tried again by others as an unknown outcome", async () => {
  await enqueue(db, queue, newEvents(5));
  const { projection, sent } = heldProjection();
  const worker = startWorker(database, projection, { graceMs: 200 });
  await until("a batch is sent", () => sent.length === 1);
  await worker.end();
  expect(sent[0]?.signal.aborted).toBe(true);
  for (const row of (await rowsOf(db, queue)).values())
    expect(row).toMatchObject({
      status: "pending",
      attempts: 1,
      counted_attempts: 0,
      error_reason: "es_timeout",
      owner: null,
    });
});

test("a request of which nobody awaits the answer any more is cut off once the worker has drained", async () => {
  await enqueue(db, queue, newEvents(5));
  const { projection, sent } = heldProjection();
  const worker = startWorker(database, projection);
  await until("a batch is sent", () => sent.length === 1);
  sent[0]?.answer(applied);
  await until("it is done", async () => (await statuses()).every((s) => s === "done 1"));
  expect(sent[0]?.signal.aborted).toBe(false);
  await worker.end();
  expect(sent[0]?.signal.aborted).toBe(true);
});

test("a batch that is being prepared when the stop comes is given back", async () => {
  await enqueue(db, queue, newEvents(5));
  const held = heldProjection();
  const go = Promise.withResolvers<void>();
  const preparing = Promise.withResolvers<void>();
  held.prepare = () => {
    preparing.resolve();
    return go.promise;
  };
  const worker = startWorker(database, held.projection);
  await preparing.promise;
  const ended = worker.end();
  go.resolve();
  await ended;
  expect(held.sent).toHaveLength(0);
  expect(await statuses()).toEqual(Array(5).fill("pending 0"));
});

test("a stop ends the waits of the experiments: what they hold is given back without costing an attempt", async () => {
  const hourMs = 3_600_000;
  await enqueue(db, queue, newEvents(5));
  const slow = heldProjection();
  const sleeping = startWorker(database, slow.projection, { processSleepMs: hourMs });
  await until("a batch is claimed", async () => (await statuses()).every((s) => s === "processing 1"));
  await sleeping.end();
  expect(await statuses()).toEqual(Array(5).fill("pending 0"));

  const chosen = Promise.withResolvers<void>();
  const watched = intercept(db, (statement) => db.execute(statement).finally(chosen.resolve));
  const choosing = startWorker({ ...database, db: watched }, slow.projection, { breakClaimMs: hourMs });
  await chosen.promise;
  await choosing.end();
  expect(await statuses()).toEqual(Array(5).fill("pending 0"));
  expect(slow.sent).toHaveLength(0);
});

test("a worker whose batches cannot be prepared goes on claiming: as many failures as it has places do not stop it", async () => {
  await enqueue(db, queue, newEvents(1));
  const held = heldProjection();
  let failures = 0;
  held.prepare = () => {
    failures += 1;
    return failures <= 4
      ? Promise.reject(Object.assign(new Error("canceling statement"), { code: "57014" }))
      : Promise.resolve();
  };
  const worker = startWorker(database, held.projection);
  await until("a batch is prepared after all", () => held.sent.length === 1, 20_000);
  for (const row of (await rowsOf(db, queue)).values())
    expect(row).toMatchObject({ attempts: 1, error_reason: "db_contention" });
  held.sent[0]?.answer(applied);
  await until("it is done", async () => (await statuses()).every((s) => s === "done 1"));
  await worker.end();
});

test("a worker that lost its lease in the middle of a request has its request cut off, and its settle touches nothing", async () => {
  await enqueue(db, queue, newEvents(5));
  const { projection, sent } = heldProjection();
  const worker = startWorker(database, projection, { leaseMs: 300 });
  await until("a batch is sent", () => sent.length === 1);
  await db.execute(
    sql`update search_outbox_events_live set claim_batch_id = gen_random_uuid(), owner = 'other', lease_until = now() + interval '1 hour'`,
  );
  await until("the request is cut off", () => sent[0]?.signal.aborted === true);
  await worker.end();
  for (const row of (await rowsOf(db, queue)).values())
    expect(row).toMatchObject({ status: "processing", owner: "other", attempts: 1 });
});

test("a lease is renewed for as long as a request is on its way, but not past the longest processing time", async () => {
  await enqueue(db, queue, newEvents(5));
  const { projection, sent } = heldProjection();
  const worker = startWorker(database, projection, { leaseMs: 300, maxProcessingMs: 1500 });
  await until("a batch is sent", () => sent.length === 1);
  const startedAt = performance.now();
  await until("the request is cut off", () => sent[0]?.signal.aborted === true, 20_000);
  // Renewed at least once, or it would have ended with its first lease.
  expect(performance.now() - startedAt).toBeGreaterThan(500);
  await worker.end();
  const [late] = await db.execute<{ late: boolean }>(
    sql`select coalesce(bool_or(lease_until > processing_started_at + interval '1.5 seconds'), false) as late from search_outbox_events_live`,
  );
  expect(late?.late).toBe(false);
});

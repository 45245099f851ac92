import { expect, test } from "bun:test";
import { queues } from "../../src/outbox/queue.ts";
import { openQueue } from "../support/open-queue.ts";
import { applied, enqueue, newEvents } from "../support/queue.ts";
import { until } from "../support/until.ts";
import { heldProjection, startWorker } from "../support/worker.ts";

const queue = queues.search;
const database = await openQueue(queue, { max: 8 });
const { db } = database;

const hour = 3_600_000;

test("what comes little by little while a request is on its way goes out as one after it", async () => {
  const { projection, sent } = heldProjection();
  const worker = startWorker(database, projection, { batchSize: 50, concurrency: 2, pollMs: 1, patienceMs: hour });
  await enqueue(db, queue, newEvents(1));
  await until("the first is sent", () => sent.length === 1);
  // Time enough for hundreds of claims.
  for (let i = 0; i < 49; i += 1) await enqueue(db, queue, newEvents(1));
  expect(sent).toHaveLength(1);
  sent[0]?.answer(applied);
  await until("the others are sent", () => sent.length === 2);
  expect(sent[1]?.lease.events).toHaveLength(49);
  sent[1]?.answer(applied);
  await worker.end();
});

test("a request that takes long is not waited for", async () => {
  const { projection, sent } = heldProjection();
  const worker = startWorker(database, projection, { concurrency: 2, patienceMs: 30 });
  await enqueue(db, queue, newEvents(1));
  await until("the first is sent", () => sent.length === 1);
  await enqueue(db, queue, newEvents(1));
  await until("the second is sent beside it", () => sent.length === 2);
  for (const request of sent) request.answer(applied);
  await worker.end();
});

test("a backlog is claimed and sent as often at once as allowed, without waiting", async () => {
  const held = heldProjection();
  const go = Promise.withResolvers<void>();
  let preparing = 0;
  held.prepare = () => {
    preparing += 1;
    return go.promise;
  };
  await enqueue(db, queue, newEvents(20));
  const worker = startWorker(database, held.projection, { batchSize: 5, concurrency: 3, patienceMs: hour });
  await until("three batches are being prepared", () => preparing === 3);
  go.resolve();
  await until("three are on their way", () => held.sent.length === 3);
  const ended = worker.end();
  for (const request of held.sent) request.answer(applied);
  await ended;
});

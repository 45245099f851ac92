import { afterEach, describe, expect, setSystemTime, test } from "bun:test";
import type { Lease } from "../../src/events.ts";
import { openClaim, renew } from "../../src/outbox/claim.ts";
import { queues } from "../../src/outbox/queue.ts";
import { reclaim } from "../../src/outbox/reclaim.ts";
import { settle } from "../../src/outbox/settle.ts";
import { workerSignals } from "../../src/telemetry/worker-signals.ts";
import { openQueue } from "../support/open-queue.ts";
import { all, applied, empty, enqueue, expire, newEvents, rowsOf } from "../support/queue.ts";
import { until } from "../support/until.ts";
import { heldProjection, quietSinks, startWorker } from "../support/worker.ts";

const queue = queues.search;
const database = await openQueue(queue, { max: 8 });
const { db } = database;
afterEach(() => {
  setSystemTime();
});

const hour = 3_600_000;
describe.each([
  ["an hour ahead", hour],
  ["an hour behind", -hour],
])("with the clock of the process %s", (_, skewMs) => {
  const skewed = () => setSystemTime(new Date(Date.now() + skewMs));
  const claim = async (): Promise<Lease | null> => await openClaim(db, queue, { owner: "w1", leaseMs: 30_000 })(10);

  test("claims, leases, renewals, retries and reclaims go by the clock of Postgres", async () => {
    await enqueue(db, queue, newEvents(2));
    skewed();
    const lease = await claim();
    if (lease === null) throw new Error("nothing was claimed");
    for (const event of lease.events) expect(Math.abs(event.ageSeconds)).toBeLessThan(60);
    expect(lease.expiresAt - performance.now()).toBeGreaterThan(0);
    expect(lease.expiresAt - performance.now()).toBeLessThanOrEqual(30_000);
    expect(await reclaim(db, queue, "sweep", 600_000, 10)).toEqual([]);
    expect(await renew(db, queue, lease, 30_000, 600_000)).toBe(2);
    await settle(
      db,
      queue,
      lease,
      all(lease, { kind: "retry", reason: "es_429", error: "full", delayMs: 60_000, counted: false, sent: true }),
    );
    for (const row of (await rowsOf(db, queue)).values()) {
      expect(row.due_in_ms).toBeGreaterThan(0);
      expect(row.due_in_ms).toBeLessThanOrEqual(60_000);
    }
    expect(await claim()).toBeNull();

    await empty(db, queue);
    await enqueue(db, queue, newEvents(2));
    const lost = await claim();
    if (lost === null) throw new Error("nothing was claimed");
    await expire(db, queue, lost);
    expect((await reclaim(db, queue, "sweep", 600_000, 10)).length).toBe(2);
    expect((await claim())?.events.length).toBe(2);
  });

  test("freshness is the age by the clock of Postgres, and what has passed since", async () => {
    const sinks = quietSinks();
    const identity = { projection: "search", workerId: "w1", esIndex: "i", projectionVersion: 1 } as const;
    const signals = workerSignals(sinks, identity);
    const [event] = newEvents(1);
    if (event === undefined) throw new Error("no event");
    const claimed = {
      ...event,
      id: 1n,
      attempts: 1,
      countedAttempts: 0,
      ageSeconds: 2,
      traceparent: null,
      tracestate: null,
    };
    const batch = signals.claimed(
      { claimBatchId: "b", events: [claimed] },
      { startedAt: Date.now(), tookMs: 1, limit: 500, mode: "atomic" },
    );
    skewed();
    await batch.settled(
      new Map([[1n, { outcome: { kind: "done", result: "applied", sent: true } }]]),
      new Set([1n]),
      1,
    );
    const { body } = await sinks.metrics.render(null);
    const [, sum] = /^outbox_event_age_seconds_sum\{[^}]*\} (\S+)$/m.exec(body) ?? [];
    expect(Number(sum)).toBeGreaterThanOrEqual(2);
    expect(Number(sum)).toBeLessThan(60);
  });

  test("a worker goes on through the jump: it keeps the lease of a request that is on its way, and sends what comes after", async () => {
    await enqueue(db, queue, newEvents(5));
    const { projection, sent } = heldProjection();
    const worker = startWorker(database, projection, { leaseMs: 900 });
    await until("a batch is sent", () => sent.length === 1);
    skewed();
    const [before] = (await rowsOf(db, queue)).values();
    // Two renewals later it is still its own.
    const startedAt = performance.now();
    await until("two leases are over", () => performance.now() - startedAt > 1800);
    expect(sent[0]?.signal.aborted).toBe(false);
    const [after] = (await rowsOf(db, queue)).values();
    expect(after).toMatchObject({ status: "processing", leased: true, claim_batch_id: before?.claim_batch_id ?? "" });
    sent[0]?.answer(applied);
    await enqueue(db, queue, newEvents(1));
    await until("the next batch is sent", () => sent.length === 2);
    sent[1]?.answer(applied);
    await worker.end();
    expect(Array.from((await rowsOf(db, queue)).values(), (r) => `${r.status} ${r.attempts}`)).toEqual(
      Array(6).fill("done 1"),
    );
  });
});

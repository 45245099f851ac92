import { expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import type { Lease } from "../../src/events.ts";
import { openClaim } from "../../src/outbox/claim.ts";
import { queues } from "../../src/outbox/queue.ts";
import { reclaim } from "../../src/outbox/reclaim.ts";
import { startSweep } from "../../src/projection/sweep.ts";
import { recordSignals } from "../support/batch.ts";
import { openQueue } from "../support/open-queue.ts";
import { enqueue, expire, leasesOf, newEvents, rowsOf } from "../support/queue.ts";
import { until } from "../support/until.ts";

const queue = queues.search;
const { db } = await openQueue(queue);

const claim = async (owner: string, limit = 5000): Promise<Lease> => {
  const lease = await openClaim(db, queue, { owner, leaseMs: 30_000 })(limit);
  if (lease === null) throw new Error("nothing was claimed");
  return lease;
};

test("a lease that holds is not touched", async () => {
  await enqueue(db, queue, newEvents(2));
  await claim("w1");
  expect(await reclaim(db, queue, "sweep", 600_000, 10)).toEqual([]);
});

test("a row whose lease ran out goes back, and says who took it, from whom, when and why", async () => {
  await enqueue(db, queue, newEvents(1, { op: "delete" }));
  const lease = await claim("w1");
  await expire(db, queue, lease);
  const [id] = lease.events.map((e) => e.id);
  expect(await reclaim(db, queue, "w2", 600_000, 10)).toEqual([
    {
      id: id ?? 0n,
      entityType: "tag",
      entityId: lease.events[0]?.entityId ?? "",
      op: "delete",
      eventVersion: lease.events[0]?.eventVersion ?? -1n,
      attempts: 1,
      from: "w1",
      claimBatchId: lease.claimBatchId,
      why: "lease_expired",
      status: "pending",
      reclaimCount: 1,
      traceparent: null,
      tracestate: null,
    },
  ]);
  expect((await rowsOf(db, queue)).get(id ?? 0n)).toMatchObject({
    status: "pending",
    attempts: 1,
    owner: null,
    claim_batch_id: null,
    last_reclaimed_by: "w2",
    last_reclaimed_from: "w1",
    last_reclaimed_reason: "lease_expired",
  });
  const [at] = await db.execute<{ now: boolean }>(
    sql`select last_reclaimed_at between now() - interval '1 minute' and now() as now from search_outbox_events`,
  );
  expect(at?.now).toBe(true);
  // Due at once, through the lane of the retries.
  expect((await claim("w3")).events[0]).toMatchObject({ id: id ?? 0n, attempts: 2 });
});

test("a row that is worked on for too long goes back though its lease holds", async () => {
  await enqueue(db, queue, newEvents(1));
  await claim("w1");
  await db.execute(sql`update search_outbox_events_live set processing_started_at = now() - interval '601 seconds'`);
  expect((await reclaim(db, queue, "w2", 600_000, 10)).map((r) => r.why)).toEqual(["max_processing_seconds"]);
});

test.each([
  [1, 3],
  [2, 3],
  [3, 3],
  [5, 5],
  [10, 10],
])(
  "with OUTBOX_MAX_ATTEMPTS=%i a row that was lost %i times is failed with a reason, and is not claimed again",
  async (maxAttempts, losses) => {
    await enqueue(db, queue, newEvents(1));
    for (let lost = 1; lost <= losses; lost += 1) {
      await expire(db, queue, await claim("w1"));
      expect((await reclaim(db, queue, "w2", 600_000, maxAttempts)).map((r) => [r.status, r.reclaimCount])).toEqual([
        [lost < losses ? "pending" : "failed", lost],
      ]);
    }
    const [row] = (await rowsOf(db, queue)).values();
    expect(row).toMatchObject({
      status: "failed",
      error_reason: "lease_expired",
      error: `the lease ran out ${losses} times`,
      attempts: losses,
      due_in_ms: null,
    });
    expect(await openClaim(db, queue, { owner: "w1", leaseMs: 1000 })(10)).toBeNull();
  },
);

test("the lease of a batch is forgotten once nothing of it is left, and not before", async () => {
  await enqueue(db, queue, newEvents(1500));
  const lapsed = await claim("w1", 1200);
  const held = await claim("w2");
  await expire(db, queue, lapsed);
  const both = [lapsed.claimBatchId, held.claimBatchId].toSorted();
  expect((await reclaim(db, queue, "w3", 600_000, 10)).length).toBe(1000);
  expect(await leasesOf(db, queue)).toEqual(both);
  expect((await reclaim(db, queue, "w3", 600_000, 10)).length).toBe(200);
  expect(await reclaim(db, queue, "w3", 600_000, 10)).toEqual([]);
  expect(await leasesOf(db, queue)).toEqual([held.claimBatchId]);
});

test("at most a thousand rows go back at once, and two sweeps at the same time share them", async () => {
  await enqueue(db, queue, newEvents(2500));
  await expire(db, queue, await claim("w1"));
  const both = await Promise.all([reclaim(db, queue, "a", 600_000, 10), reclaim(db, queue, "b", 600_000, 10)]);
  const rest = await reclaim(db, queue, "c", 600_000, 10);
  for (const part of [...both, rest]) expect(part.length).toBeLessThanOrEqual(1000);
  const more = await reclaim(db, queue, "d", 600_000, 10);
  const ids = [...both.flat(), ...rest, ...more].map((r) => r.id);
  expect(ids.length).toBe(2500);
  expect(new Set(ids).size).toBe(2500);
});

test("one sweep takes back all that a killed worker held, in steps, and tells each row once", async () => {
  await enqueue(db, queue, newEvents(2500));
  await expire(db, queue, await claim("w1"));
  const recorded = recordSignals();
  let announced = 0;
  const stop = startSweep(
    db,
    queue,
    { workerId: "w2", reclaimIntervalMs: 600_000, maxProcessingMs: 600_000, maxAttempts: 10, retentionHours: 1000 },
    recorded.signals,
    () => {
      announced += 1;
    },
  );
  try {
    await until("nothing is under lease", async () =>
      [...(await rowsOf(db, queue)).values()].every((r) => r.status === "pending"),
    );
  } finally {
    await stop();
  }
  expect(recorded.counted()["outbox_reclaimed_total{why=lease_expired}"]).toBe(2500);
  expect(announced).toBe(3);
  expect(await leasesOf(db, queue)).toEqual([]);
});

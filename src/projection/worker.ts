import type { Db } from "../db/client.ts";
import { failureReason } from "../db/failure.ts";
import type { Lease } from "../events.ts";
import { openClaim } from "../outbox/claim.ts";
import type { WakeUps } from "../outbox/wake.ts";
import { pause } from "../pause.ts";
import type { BatchSignals } from "../telemetry/batch-signals.ts";
import type { WorkerSignals } from "../telemetry/worker-signals.ts";
import { type BatchHost, processBatch } from "./batch.ts";
import { createHasten, type Hasten } from "./hasten.ts";
import type { Health } from "./health.ts";
import { createLatch } from "./latch.ts";
import { createPace, type Pace } from "./pace.ts";
import type { Projection } from "./projection.ts";
import { createSlots } from "./slots.ts";
import type { WorkerOptions } from "./worker-options.ts";

/** The loop never waits longer than this at a stretch: it is how /livez knows that it is alive. */
const longestWaitMs = 1000;
/** How often the loop asks whether the database is back, which others find out. */
const databaseAwayMs = 200;
/** How long before the grace ends a request is cut off: the settle needs this. */
const cutOffMarginMs = (graceMs: number) => Math.min(2000, graceMs * 0.15);

/** Labs only: waits between claim and send, until `stop` at the latest. */
function delayed(projection: Projection, ms: number, stop: AbortSignal): Projection {
  return {
    ...projection,
    prepare: async (lease, batch) => {
      await pause(ms, stop);
      return await projection.prepare(lease, batch);
    },
  };
}

/** What a worker works with. */
export type WorkerHost = {
  readonly db: Db;
  readonly projection: Projection;
  readonly wakeUps: WakeUps;
  readonly options: WorkerOptions;
  readonly health: Health;
  readonly signals: WorkerSignals;
};

/**
 * Runs one projection until `stop` fires, then drains: no new claims, what was not sent is released, what was sent is settled, within the grace unless the database does not
 * answer: the process leaves that behind. One claim at a time; while requests are in flight the next batch is claimed and built if there is a backlog, so that the target never
 * waits for us, and is left to grow if there is none.
 * Resolves when nothing is in hand any more. Never rejects.
 */
export async function runWorker(worker: WorkerHost, stop: AbortSignal): Promise<void> {
  const { db, projection, wakeUps, options, health, signals } = worker;
  /** Rings when there may be something to claim. */
  const due = createLatch();
  const leave = new AbortController();
  const pace: Pace = createPace(options.concurrency, signals, () => void hasten.all());
  const hasten: Hasten = createHasten(db, projection.queue, signals, due.ring, pace.probing, stop);
  const slots = createSlots(pace, options.patienceMs, longestWaitMs, stop);
  const claim = openClaim(db, projection.queue, {
    owner: options.workerId,
    leaseMs: options.leaseMs,
    breakClaimMs: options.breakClaimMs,
    stop,
  });
  const mode = options.breakClaimMs === undefined ? "atomic" : "non_atomic";
  const batchHost: BatchHost = {
    db,
    projection: options.processSleepMs === 0 ? projection : delayed(projection, options.processSleepMs, stop),
    pace,
    signals,
    leaseMs: options.leaseMs,
    maxProcessingMs: options.maxProcessingMs,
    leave: leave.signal,
  };
  const inHand = new Set<Promise<void>>();
  let backlog = false;
  /** Until then something of our own may come due at any moment: nobody else tells. */
  let dueUntil = Number.NEGATIVE_INFINITY;

  async function process(lease: Lease, told: BatchSignals): Promise<void> {
    const slot = slots.enter();
    const again = await processBatch(batchHost, lease, slot.turn, told);
    slot.leave();
    if (again === null) return;
    setTimeout(due.ring, again.soonestMs).unref();
    dueUntil = Math.max(dueUntil, performance.now() + again.latestMs + longestWaitMs);
  }

  /** Claims and starts one batch, and says whether there is more to claim now. */
  async function claimOne(): Promise<"more" | "none" | "failed"> {
    const probing = pace.probing();
    // What failed waits for its backoff; the probe needs something to send.
    if (probing) await hasten.one();
    const startedAt = Date.now();
    const clock = performance.now();
    // What is announced from here on may have come too late for this claim.
    due.hush();
    try {
      // A probe that fails costs its events an attempt, and tells of each: one is enough.
      const limit = probing ? 1 : options.batchSize;
      const lease = await claim(limit);
      health.claimed();
      backlog = lease?.events.length === limit;
      if (lease === null) {
        signals.nothingClaimed(limit, mode);
        return "none";
      }
      const told = signals.claimed(lease, {
        startedAt,
        tookMs: performance.now() - clock,
        limit,
        mode,
        probe: probing,
      });
      const batch = process(lease, told).finally(() => inHand.delete(batch));
      inHand.add(batch);
      return backlog ? "more" : "none";
    } catch (error) {
      signals.databaseFailed("claim", failureReason(error), error);
      health.claimFailed(error);
      await slots.room.wait(databaseAwayMs);
      return "failed";
    }
  }

  /** Waits until there may be something to claim: for `ms` when nobody tells of any, less while something of our own may be due. The loop ticks meanwhile. */
  async function idle(ms: number): Promise<void> {
    const until = performance.now() + ms;
    for (;;) {
      if (await due.wait(Math.min(longestWaitMs, until - performance.now()))) return Bun.sleep(projection.gatherMs);
      health.tick();
      const now = performance.now();
      if (now >= until || now < dueUntil || stop.aborted) return;
    }
  }

  let cutOff: ReturnType<typeof setTimeout> | undefined;
  const drain = () => {
    due.ring();
    slots.wake();
    // What is still on its way then has an unknown outcome, and is tried again by somebody else. The grace is that of the whole drain, a claim that hangs included.
    cutOff = setTimeout(() => leave.abort(), options.graceMs - cutOffMarginMs(options.graceMs));
  };
  stop.addEventListener("abort", drain);
  const unsubscribe = wakeUps.subscribe(due.ring);
  while (!stop.aborted) {
    health.tick();
    health.targetDown(pace.probing() ? (pace.reason() ?? "none") : null);
    const waitMs = pace.waitMs();
    if (waitMs > 0 && pace.open()) signals.breakerWaiting(pace.reason(), waitMs);
    if (waitMs > 0) await slots.room.wait(Math.min(longestWaitMs, Math.max(10, waitMs)));
    else if (!health.mayClaim()) await slots.room.wait(databaseAwayMs);
    // Once its patience is over it looks again.
    else if (!slots.free(backlog)) await slots.room.wait(slots.patienceMs(longestWaitMs));
    else {
      const claimed = await claimOne();
      if (claimed !== "more") await idle(claimed === "none" ? options.pollMs : Math.min(longestWaitMs, options.pollMs));
    }
  }
  unsubscribe();
  await Promise.all(inHand);
  clearTimeout(cutOff);
  // A probe that was given up may still not have been answered: nobody waits for it now.
  leave.abort();
}

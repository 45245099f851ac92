import type { Db } from "../db/client.ts";
import { type Claim, openClaim } from "../outbox/claim.ts";
import { type Lease, reasons } from "../outbox/event.ts";
import { hasten } from "../outbox/settle.ts";
import type { WakeUps } from "../outbox/wake.ts";
import { pause } from "../pause.ts";
import type { ClaimTold } from "../telemetry/batch-signals.ts";
import type { WorkerSignals } from "../telemetry/worker-signals.ts";
import { type BatchOptions, failureReason, processBatch, type Turn } from "./batch.ts";
import type { Health } from "./health.ts";
import { createLatch } from "./latch.ts";
import { createPace } from "./pace.ts";
import type { Projection } from "./projection.ts";
import type { WorkerOptions } from "./worker-options.ts";

/** Reasons for which an event waits for its target, not for itself. */
const targetReasons = reasons.filter((r) =>
  ["es_connect", "es_timeout", "es_429", "es_5xx", "es_404", "es_4xx", "es_unknown"].includes(r),
);

/** The loop never waits longer than this at a stretch: it is how /livez knows that it is alive. */
const longestWaitMs = 1000;
/** How often the loop asks whether the database is back, which others find out. */
const databaseAwayMs = 200;
/** Batches that may be in their settle while others are on their way. */
const settling = 2;
/** Rows that one statement makes due: however many wait, it ends before its timeout (measured: 0.2 s, and 15 s for a million). */
const hastenedAtOnce = 10_000;
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

/**
 * Runs one projection until `stop` fires, then drains: no new claims, what was not sent is released, what was sent is settled, within the grace unless the database does not
 * answer: the process leaves that behind. One claim at a time; while requests are in flight the next batch is claimed and built if there is a backlog, so that the target never
 * waits for us, and is left to grow if there is none.
 * Resolves when nothing is in hand any more. Never rejects.
 */
export async function runWorker(
  db: Db,
  projection: Projection,
  wakeUps: WakeUps,
  options: WorkerOptions,
  health: Health,
  signals: WorkerSignals,
  stop: AbortSignal,
): Promise<void> {
  /** Rings when there may be something to claim. */
  const work = createLatch();
  /** Rings when there may be room for what is claimed. */
  const room = createLatch();
  const turns = createLatch();
  const leave = new AbortController();
  const claim: Claim = openClaim(db, projection.queue, {
    owner: options.workerId,
    leaseMs: options.leaseMs,
    breakClaimMs: options.breakClaimMs,
    stop,
  });
  const batchOptions: BatchOptions = { leaseMs: options.leaseMs, maxProcessingMs: options.maxProcessingMs };
  const slowed = options.processSleepMs === 0 ? projection : delayed(projection, options.processSleepMs, stop);
  const inHand = new Set<Promise<void>>();
  const mode = options.breakClaimMs === undefined ? "atomic" : "non_atomic";
  let sending = 0;
  let waiting = 0;
  let backlog = false;
  let startedLast = 0;
  /** Until then something of our own may come due at any moment: nobody else tells. */
  let dueUntil = Number.NEGATIVE_INFINITY;

  /** Makes the next of what waits for the target due, at most `limit`, and none that was touched in the last `sinceMs`. Returns how many; null where it could not. */
  const due = async (limit: number, sinceMs: number): Promise<number | null> => {
    try {
      return await hasten(db, projection.queue, targetReasons, limit, sinceMs);
    } catch (error) {
      signals.databaseFailed("hasten", failureReason(error), error);
      return null;
    }
  };
  let backSince = 0;
  let hastening = false;
  /**
   * When the target is back, for all that waited then. Nothing else would do it: the rows would sit out a backoff of up to an hour. So it is tried again, until the target is
   * away again or the stop; in smaller steps where one took longer than a statement may.
   */
  async function hastenAll(): Promise<void> {
    backSince = performance.now();
    if (hastening) return;
    hastening = true;
    let total = 0;
    let limit = hastenedAtOnce;
    while (!stop.aborted && !pace.probing()) {
      const count = await due(limit, performance.now() - backSince);
      if (count === null) {
        limit = Math.max(100, Math.floor(limit / 2));
        await pause(longestWaitMs, stop);
        continue;
      }
      total += count;
      work.ring();
      if (count < limit) break;
    }
    hastening = false;
    if (total > 0) signals.hastened(total);
  }
  const pace = createPace(options.concurrency, signals, () => void hastenAll());

  /** Waits for the right to send; `leaveQueue` is called once it is over. */
  async function takeTurn(leaveQueue: () => void): ReturnType<Turn> {
    while (sending >= pace.limit() && !stop.aborted) await turns.wait(longestWaitMs);
    leaveQueue();
    if (stop.aborted) return { granted: false, done: () => undefined };
    sending += 1;
    room.ring();
    return {
      granted: true,
      done: () => {
        sending -= 1;
        turns.ring();
        room.ring();
      },
    };
  }

  function start(lease: Lease, claimed: ClaimTold): void {
    waiting += 1;
    startedLast = performance.now();
    // A batch that could not be prepared never comes to its turn.
    let queued = true;
    const leaveQueue = () => {
      if (queued) waiting -= 1;
      queued = false;
    };
    const turn = () => takeTurn(leaveQueue);
    const batch = signals.claimed(lease, claimed);
    const batchDone = processBatch(db, slowed, lease, turn, pace, batchOptions, batch, signals, leave.signal).then(
      (again) => {
        inHand.delete(batchDone);
        leaveQueue();
        room.ring();
        if (again === null) return;
        setTimeout(work.ring, again.soonestMs).unref();
        dueUntil = Math.max(dueUntil, performance.now() + again.latestMs + longestWaitMs);
      },
    );
    inHand.add(batchDone);
  }

  /** Whether a request may go out beside those on their way: when there is a backlog, or when they take so long that it is not worth waiting for them. */
  const mayJoin = () => backlog || performance.now() >= startedLast + options.patienceMs;
  /** Whether another batch may be claimed: when it can be sent at once, or when there is so much to do that it should be built ahead. */
  const hasRoom = () =>
    inHand.size < pace.limit() + 1 + settling &&
    (sending + waiting === 0 ||
      (sending + waiting < pace.limit() && mayJoin()) ||
      (backlog && waiting === 0 && !pace.probing()));

  /** Claims and starts one batch, and says whether there is more to claim now. */
  async function turnOver(): Promise<"more" | "none" | "failed"> {
    const probing = pace.probing();
    // What failed waits for its backoff; the probe needs something to send.
    if (probing) await due(1, 0);
    const startedAt = Date.now();
    const clock = performance.now();
    // What is announced from here on may have come too late for this claim.
    work.hush();
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
      start(lease, { startedAt, tookMs: performance.now() - clock, limit, mode, probe: probing });
      return backlog ? "more" : "none";
    } catch (error) {
      signals.databaseFailed("claim", failureReason(error), error);
      health.claimFailed(error);
      await room.wait(200);
      return "failed";
    }
  }

  /** Waits until there may be something to claim: for `ms` when nobody tells of any, less while something of our own may be due. The loop ticks meanwhile. */
  async function idle(ms: number): Promise<void> {
    const until = performance.now() + ms;
    for (;;) {
      if (await work.wait(Math.min(longestWaitMs, until - performance.now()))) return Bun.sleep(projection.gatherMs);
      health.tick();
      const now = performance.now();
      if (now >= until || now < dueUntil || stop.aborted) return;
    }
  }

  const unsubscribe = wakeUps.subscribe(work.ring);
  const wake = () => {
    work.ring();
    room.ring();
    turns.ring();
  };
  let cutOff: ReturnType<typeof setTimeout> | undefined;
  const drain = () => {
    wake();
    // What is still on its way then has an unknown outcome, and is tried again by somebody else. The grace is that of the whole drain, a claim that hangs included.
    cutOff = setTimeout(() => leave.abort(), options.graceMs - cutOffMarginMs(options.graceMs));
  };
  stop.addEventListener("abort", drain);
  while (!stop.aborted) {
    health.tick();
    health.targetDown(pace.probing() ? (pace.reason() ?? "none") : null);
    const waitMs = pace.waitMs();
    if (waitMs > 0 && pace.open()) signals.breakerWaiting(pace.reason(), waitMs);
    if (!health.mayClaim() || waitMs > 0)
      await room.wait(Math.min(longestWaitMs, waitMs > 0 ? Math.max(10, waitMs) : databaseAwayMs));
    // Once its patience is over it looks again.
    else if (!hasRoom())
      await room.wait(sending + waiting < pace.limit() ? Math.min(longestWaitMs, options.patienceMs) : longestWaitMs);
    else {
      const claimed = await turnOver();
      if (claimed !== "more") await idle(claimed === "none" ? options.pollMs : Math.min(longestWaitMs, options.pollMs));
    }
  }
  unsubscribe();
  await Promise.all(inHand);
  clearTimeout(cutOff);
  // A probe that was given up may still not have been answered: nobody waits for it now.
  leave.abort();
}

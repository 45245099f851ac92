import type { Db } from "../db/client.ts";
import { isContention, isMisfit, isRolledBack, isUnavailable, nameFailure } from "../db/failure.ts";
import { renew } from "../outbox/claim.ts";
import type { Lease, Outcome, Queue } from "../outbox/event.ts";
import { settle } from "../outbox/settle.ts";
import type { BatchSignals } from "../telemetry/batch-signals.ts";
import type { DatabaseReason, WorkerSignals } from "../telemetry/worker-signals.ts";
import { retryDelayMs } from "./backoff.ts";
import { FailsForAll } from "./isolate.ts";
import type { Pace } from "./pace.ts";
import type { Decision, Prepared, Projection } from "./projection.ts";

export type BatchOptions = {
  readonly leaseMs: number;
  readonly maxProcessingMs: number;
};

/** How long before the lease ends a request is cut off: the settle needs this. */
const marginMs = (leaseMs: number) => Math.min(2000, leaseMs * 0.15);

/** When the events of a batch are due again that are not done. */
export type DueAgain = { readonly soonestMs: number; readonly latestMs: number };

/** What was given back is due at once; but what stood in its way is seldom gone at once. */
const releasedMs = 1000;

/** Waits for the right to send; false means that the batch shall be given back. */
export type Turn = () => Promise<{ readonly granted: boolean; readonly done: () => void }>;

/**
 * Keeps a lease alive while its batch is worked on. The signal fires before the lease can end, or at once when rows of it are lost. Once it is `settling` rows that are gone
 * are not lost: the settle may have them, and says itself which were not ours any more.
 */
function keepLease(
  db: Db,
  queue: Queue,
  lease: Lease,
  options: BatchOptions,
  signals: WorkerSignals,
  leave: AbortSignal,
): { readonly signal: AbortSignal; readonly settling: () => void; readonly stop: () => void } {
  const ended = new AbortController();
  let state: "working" | "settling" | "over" = "working";
  let expiry: ReturnType<typeof setTimeout>;
  const arm = () => {
    clearTimeout(expiry);
    expiry = setTimeout(
      () => ended.abort(),
      Math.max(0, lease.expiresAt - marginMs(options.leaseMs) - performance.now()),
    );
  };
  arm();
  const beat = setInterval(() => {
    renew(db, queue, lease, options.leaseMs, options.maxProcessingMs).then(
      (held) => {
        if (state === "over") return;
        if (held === lease.events.length) return arm();
        if (state === "settling") return;
        signals.leaseNotRenewed(lease.claimBatchId, held, lease.events.length);
        ended.abort();
      },
      // The lease may still hold; the expiry timer decides.
      (error: unknown) => {
        if (state !== "over") signals.databaseFailed("renew", failureReason(error), error);
      },
    );
  }, options.leaseMs / 3);
  return {
    signal: AbortSignal.any([ended.signal, leave]),
    settling: () => {
      state = "settling";
    },
    stop: () => {
      state = "over";
      clearInterval(beat);
      clearTimeout(expiry);
    },
  };
}

export function failureReason(error: unknown): DatabaseReason {
  if (isContention(error)) return "db_contention";
  return isUnavailable(error) ? "db_unavailable" : "unknown_exception";
}

/** Settles, trying again for as long as the lease holds and nobody wants to leave: the target has the documents already, only the rows do not know yet. */
async function settleWithin(
  db: Db,
  queue: Queue,
  lease: Lease,
  outcomes: readonly (readonly [bigint, Outcome])[],
  signals: WorkerSignals,
  leave: AbortSignal,
): Promise<Set<bigint>> {
  let open = false;
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await settle(db, queue, lease, outcomes, open);
    } catch (error) {
      open ||= !isRolledBack(error);
      signals.databaseFailed("settle", failureReason(error), error);
      const delay = retryDelayMs(attempt, { baseMs: 100, maxMs: 2000 }, Math.random());
      const inVain = failureReason(error) === "unknown_exception" || performance.now() + delay > lease.expiresAt;
      if (inVain || leave.aborted) throw error;
      await Bun.sleep(delay);
    }
  }
}

function releaseAll(lease: Lease): Map<bigint, Decision> {
  return new Map(lease.events.map((e) => [e.id, { outcome: { kind: "release" } }]));
}

/** When our own database stood in the way: the events are not to blame, and are tried again a little later. `sent` where the target may have them already. */
function putOff(lease: Lease, error: unknown, sent: boolean): Map<bigint, Decision> {
  const reason = failureReason(error);
  const retry = (attempts: number): Outcome => ({
    kind: "retry",
    reason,
    error: nameFailure(error),
    delayMs: retryDelayMs(attempts, { baseMs: 200, maxMs: 5000 }, Math.random()),
    counted: false,
    sent,
  });
  return new Map(lease.events.map((e) => [e.id, { outcome: retry(e.attempts) }]));
}

/**
 * One batch from claim to settlement: prepare, wait for the turn to send, send, settle, tell. Returns when its events are due again, if any is.
 * Never throws: what cannot be settled is told, and its lease runs out.
 */
export async function processBatch(
  db: Db,
  projection: Projection,
  lease: Lease,
  turn: Turn,
  pace: Pace,
  options: BatchOptions,
  batch: BatchSignals,
  signals: WorkerSignals,
  leave: AbortSignal,
): Promise<DueAgain | null> {
  const kept = keepLease(db, projection.queue, lease, options, signals, leave);
  const apply = async (): Promise<ReadonlyMap<bigint, Decision>> => {
    let prepared: Prepared;
    try {
      prepared = await projection.prepare(lease, batch);
    } catch (error) {
      signals.databaseFailed("prepare", failureReason(error), error);
      return failureReason(error) === "db_unavailable" ? releaseAll(lease) : putOff(lease, error, false);
    }
    if ("decided" in prepared) return prepared.decided;
    const { granted, done } = await turn();
    try {
      // Past its time a request would meet a row that is somebody else's.
      if (!granted || kept.signal.aborted) return releaseAll(lease);
      const applied = await pace.send((pacing) => prepared.send(kept.signal, pacing));
      return applied === null ? releaseAll(lease) : applied.decisions;
    } catch (error) {
      // A projection into our own database: not settled, the events would wait for the lease to run out.
      const known = failureReason(error) !== "unknown_exception" || isMisfit(error) || error instanceof FailsForAll;
      if (!known) throw error;
      signals.databaseFailed("send", failureReason(error), error);
      return putOff(lease, error, true);
    } finally {
      done();
    }
  };
  try {
    const decisions = await batch.run(apply);
    const startedAt = performance.now();
    const outcomes = Array.from(decisions, ([id, { outcome }]) => [id, outcome] as const);
    kept.settling();
    const settled = await batch.run(() => settleWithin(db, projection.queue, lease, outcomes, signals, leave));
    const settleMs = performance.now() - startedAt;
    // Telling takes its time, and what is settled has no lease any more.
    kept.stop();
    await batch.settled(decisions, settled, settleMs);
    const delays = outcomes.flatMap(([, o]) =>
      o.kind === "retry" ? [o.delayMs] : o.kind === "release" ? [releasedMs] : [],
    );
    return delays.length === 0 ? null : { soonestMs: Math.min(...delays), latestMs: Math.max(...delays) };
  } catch (error) {
    batch.lost(error);
    return null;
  } finally {
    kept.stop();
  }
}

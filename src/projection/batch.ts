import type { Db } from "../db/client.ts";
import { failureReason, isMisfit, nameFailure } from "../db/failure.ts";
import type { Decision, Lease, Outcome } from "../events.ts";
import type { BatchSignals } from "../telemetry/batch-signals.ts";
import type { WorkerSignals } from "../telemetry/worker-signals.ts";
import { retryDelayMs } from "./backoff.ts";
import { holdLease } from "./held-lease.ts";
import { FailsForAll } from "./isolate.ts";
import type { Pace } from "./pace.ts";
import type { Prepared, Projection } from "./projection.ts";

/** What every batch of a worker works with. */
export type BatchHost = {
  readonly db: Db;
  readonly projection: Projection;
  readonly pace: Pace;
  readonly signals: WorkerSignals;
  readonly leaseMs: number;
  readonly maxProcessingMs: number;
  /** Fires when the process leaves: requests are cut off, and nothing is tried again. */
  readonly leave: AbortSignal;
};

/** When the events of a batch are due again that are not done. */
export type DueAgain = { readonly soonestMs: number; readonly latestMs: number };

/** What was given back is due at once; but what stood in its way is seldom gone at once. */
const releasedMs = 1000;

/** Waits for the right to send; false means that the batch shall be given back. */
export type Turn = () => Promise<{ readonly granted: boolean; readonly done: () => void }>;

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
    delayMs: retryDelayMs(attempts, { baseMs: 200, maxMs: 5000 }),
    counted: false,
    sent,
  });
  return new Map(lease.events.map((e) => [e.id, { outcome: retry(e.attempts) }]));
}

/**
 * One batch from claim to settlement: prepare, wait for the turn to send, send, settle, report. Returns when its events are due again, if any are.
 * Never throws: what cannot be settled is reported, and its lease runs out.
 */
export async function processBatch(
  host: BatchHost,
  lease: Lease,
  turn: Turn,
  batch: BatchSignals,
): Promise<DueAgain | null> {
  const { db, projection, pace, signals } = host;
  const held = holdLease(db, projection.queue, lease, host, signals);
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
      if (!granted || held.signal.aborted) return releaseAll(lease);
      const applied = await pace.send((pacing) => prepared.send(held.signal, pacing));
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
    const settled = await batch.run(() => held.settle(outcomes));
    await batch.settled(decisions, settled, performance.now() - startedAt);
    const delays = outcomes.flatMap(([, o]) =>
      o.kind === "retry" ? [o.delayMs] : o.kind === "release" ? [releasedMs] : [],
    );
    return delays.length === 0 ? null : { soonestMs: Math.min(...delays), latestMs: Math.max(...delays) };
  } catch (error) {
    batch.lost(error);
    return null;
  } finally {
    held.letGo();
  }
}

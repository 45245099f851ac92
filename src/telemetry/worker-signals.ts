import {
  type DatabaseReason,
  databaseReasons,
  failureClasses,
  ops,
  projections,
  reasons,
  reclaimReasons,
} from "../events.ts";
import { batchSignals, type ClaimMode, type TellClaim } from "./batch-signals.ts";
import type { WorkerIdentity } from "./event-signals.ts";
import { obsSchema } from "./keys.ts";
import type { MetricName } from "./metric-definitions.ts";
import type { Metrics } from "./metrics.ts";
import { reclaimSignals, type TellReclaimed } from "./reclaim-signals.ts";
import type { Sinks } from "./signals.ts";
import { sparingly } from "./sparingly.ts";

/** What a worker does with Postgres. */
const databaseSteps = ["claim", "prepare", "send", "renew", "settle", "hasten", "reclaim", "backlog", "prune"] as const;
export type DatabaseStep = (typeof databaseSteps)[number];

export type WorkerSignals = {
  readonly claimed: TellClaim;
  /** A claim that found nothing to do. */
  readonly nothingClaimed: (limit: number, mode: ClaimMode) => void;
  readonly reclaimed: TellReclaimed;
  readonly leaseNotRenewed: (claimBatchId: string, held: number, of: number) => void;
  readonly backlogRead: (backlog: {
    lag: number;
    processing: number;
    stuck: number;
    failed: number;
    oldestAgeSeconds: number;
  }) => void;
  /** A rebuild was killed between its take-over and the events after it; they are in the queue now. */
  readonly takeOverCompleted: (events: number) => void;
  readonly rebuildRead: (last: { durationSeconds: number; finishedAt: number; success: boolean }) => void;
  readonly breakerTurned: (state: "closed" | "half_open" | "open", reason: string | null) => void;
  /** While the breaker is open; at most one line a second comes of it. */
  readonly breakerWaiting: (reason: string | null, retryInMs: number) => void;
  readonly hastened: (count: number) => void;
  readonly inflightLimited: (limit: number) => void;
  readonly databaseFailed: (step: DatabaseStep, reason: DatabaseReason, error: unknown) => void;
  readonly pruned: (events: number, tombstones: number) => void;
  readonly stateTurned: (state: string, reason: string | null) => void;
  readonly experiment: (message: string, fields: Readonly<Record<string, string | number | boolean>>) => void;
};

export function workerSignals(sinks: Sinks, identity: WorkerIdentity): WorkerSignals {
  const { metrics, tracing } = sinks;
  const projection = projections[identity.projection];
  const log = sinks.log.child({
    layer: "worker",
    projection,
    worker_id: identity.workerId,
    projection_version: identity.projectionVersion,
  });
  const at = { projection };
  const base = {
    "wordloom.obs_schema": obsSchema,
    projection: identity.projection,
    "wordloom.projection": projection,
    "wordloom.worker_id": identity.workerId,
    "wordloom.worker.id": identity.workerId,
    projection_version: identity.projectionVersion,
    ...identity.labs,
  };
  const { esIndex } = identity;
  const eventBase = esIndex === null ? base : { ...base, "wordloom.es_index": esIndex };
  const worker = { log, metrics, tracing, identity, at, base, eventBase };
  /** Whether the target was reported down, and not yet back. */
  let toldOpen = false;
  const mayTell = sparingly();
  startAtZero(metrics, projection);

  return {
    claimed: batchSignals(worker, () => mayTell(1000)),
    nothingClaimed: (limit, mode) =>
      log.debug(
        { event: "outbox.claim_batch", batch_size: limit, claimed: 0, claim_mode: mode },
        "Claimed 0 outbox events",
      ),
    reclaimed: reclaimSignals(worker),
    leaseNotRenewed: (claimBatchId, held, of) =>
      log.warn(
        { event: "outbox.lease_not_renewed", claim_batch_id: claimBatchId, held, batch_size: of },
        `The lease holds ${held} of ${of} events`,
      ),
    backlogRead: (backlog) => {
      metrics.set("outbox_lag_events", at, backlog.lag);
      metrics.set("outbox_oldest_age_seconds", at, backlog.oldestAgeSeconds);
      metrics.set("outbox_inflight_events", at, backlog.processing);
      metrics.set("outbox_stuck_processing_events", at, backlog.stuck);
      metrics.set("outbox_failed_events", at, backlog.failed);
    },
    rebuildRead: (last) => {
      metrics.set("projection_rebuild_duration_seconds", at, last.durationSeconds);
      metrics.set("projection_rebuild_last_finished_timestamp_seconds", at, last.finishedAt);
      metrics.set("projection_rebuild_last_success", at, last.success ? 1 : 0);
    },
    takeOverCompleted: (events) =>
      log.warn(
        { event: "search.take_over_completed", events },
        "a rebuild was interrupted right after its take-over: what was written in that moment is in the queue now",
      ),
    breakerTurned: (state, reason) => {
      metrics.set("outbox_breaker_state", at, state === "closed" ? 0 : state === "half_open" ? 1 : 2);
      // A target that stays down is probed twice a second: said once, and again when it is back.
      const again = state === "half_open" || (state === "open" && toldOpen);
      toldOpen = state !== "closed";
      // What has just been said need not be said again at once.
      if (!again) mayTell(0);
      log[again ? "debug" : "warn"]({ event: "outbox.breaker", state, reason: reason ?? "none" }, breakerSays[state]);
    },
    breakerWaiting: (reason, retryInMs) => {
      // A probe's log line says more; there is none while the target has asked us to wait.
      if (mayTell(2000))
        log.warn(
          { event: "outbox.breaker_waiting", reason: reason ?? "none", retry_in_ms: Math.round(retryInMs) },
          "the target is still down",
        );
    },
    hastened: (count) => log.warn({ event: "outbox.hastened", count }, "the target is back: what waited for it is due"),
    inflightLimited: (limit) => metrics.set("outbox_inflight_limit", at, limit),
    databaseFailed: (step, reason, error) => {
      metrics.add("outbox_db_errors_total", { ...at, step, reason });
      log.warn(
        { event: "outbox.database_failed", step, reason, exc_info: error },
        `Postgres failed a ${step}: ${reason}`,
      );
    },
    pruned: (events, tombstones) => {
      metrics.add("outbox_pruned_total", at, events);
      log.info({ event: "outbox.pruned", events, tombstones }, `Pruned ${events} events and ${tombstones} tombstones`);
    },
    stateTurned: (state, reason) =>
      log.warn({ event: "worker.state", state, reason: reason ?? "none" }, `The worker is ${state}`),
    experiment: (message, fields) => log.warn({ event: "labs.experiment", ...fields }, `[LABS] ${message}`),
  };
}

const breakerSays = {
  open: "the target is down: only probes are claimed",
  half_open: "the target is being probed",
  closed: "the target is back",
};

/** Every series that can come exists from the start, so that increase() sees the first failure. */
function startAtZero(metrics: Metrics, projection: string): void {
  const gauges = [
    "outbox_lag_events",
    "outbox_oldest_age_seconds",
    "outbox_inflight_events",
    "outbox_stuck_processing_events",
    "outbox_failed_events",
    "outbox_last_success_timestamp_seconds",
    "outbox_breaker_state",
    "projection_rebuild_duration_seconds",
    "projection_rebuild_last_finished_timestamp_seconds",
    "projection_rebuild_last_success",
  ] as const satisfies readonly MetricName[];
  for (const name of gauges) metrics.set(name, { projection }, 0);
  metrics.add("outbox_owner_mismatch_skips_total", { projection }, 0);
  metrics.add("outbox_pruned_total", { projection }, 0);
  metrics.add("outbox_es_bulk_failed_requests_total", { projection }, 0);
  for (const step of databaseSteps)
    for (const reason of databaseReasons) metrics.add("outbox_db_errors_total", { projection, step, reason }, 0);
  for (const why of reclaimReasons) metrics.add("outbox_reclaimed_total", { projection, why }, 0);
  for (const result of ["success", "partial", "failed"])
    metrics.add("outbox_es_bulk_requests_total", { projection, result }, 0);
  for (const op of ops) {
    metrics.add("outbox_processed_total", { projection, op }, 0);
    metrics.add("outbox_superseded_total", { projection, op }, 0);
    metrics.add("outbox_idempotent_noop_total", { projection, op, reason: "es_404" }, 0);
    for (const reason of reasons)
      for (const name of [
        "outbox_failed_total",
        "outbox_retry_scheduled_total",
        "outbox_terminal_failed_total",
      ] as const)
        metrics.add(name, { projection, op, reason }, 0);
  }
  for (const op of ["index", "delete"]) {
    for (const result of ["success", "failed"])
      metrics.add("outbox_es_bulk_items_total", { projection, op, result }, 0);
    for (const failure_class of failureClasses)
      metrics.add("outbox_es_bulk_item_failures_total", { projection, op, failure_class }, 0);
  }
}

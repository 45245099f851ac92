import { type Attributes, context, type Span, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { obsSchema, projections } from "./keys.ts";
import { sampledTraceId, traceKeys } from "./log.ts";
import type { MetricName, Metrics, Tally } from "./metrics.ts";
import { contextOf, type TraceHeaders } from "./propagation.ts";
import type { Sinks } from "./signals.ts";

/** The event as signals need it. */
export type SignalledEvent = TraceHeaders & {
  readonly id: bigint;
  readonly entityType: string;
  readonly entityId: string;
  readonly op: string;
  readonly eventVersion: bigint;
  readonly attempts: number;
  readonly ageSeconds: number;
};

/** What became of one event, as signals need it: a decision of the projection is one. */
export type SignalledOutcome = {
  readonly outcome: {
    readonly kind: "done" | "retry" | "fail" | "release";
    readonly result?: string;
    /** Of what is done: false where a newer event speaks for it, and nothing has reached the target. */
    readonly sent?: boolean;
    readonly reason?: string;
    readonly error?: string;
  };
  readonly errorType?: string | null;
  readonly noopReason?: string;
  readonly warning?: string;
  readonly labs?: Attributes;
};

export type BulkRequest = {
  readonly startedAt: number;
  readonly durationMs: number;
  readonly index: string;
  /** "failed": the request as a whole. */
  readonly result: "success" | "partial" | "failed";
  readonly error?: string;
  readonly items: readonly { readonly op: "index" | "delete"; readonly failureClass: string | null }[];
};

/** What a worker does with Postgres. */
const databaseSteps = ["claim", "prepare", "send", "renew", "settle", "hasten", "reclaim", "backlog", "prune"] as const;
export type DatabaseStep = (typeof databaseSteps)[number];

const databaseReasons = ["db_contention", "db_unavailable", "unknown_exception"] as const;
export type DatabaseReason = (typeof databaseReasons)[number];

export type BatchSignals = {
  /** Runs the batch's work inside its span. */
  readonly run: <T>(work: () => T) => T;
  readonly bulkSent: (request: BulkRequest) => void;
  /** After the settle, from what the rows now say. `settled` are the ids that were still ours. */
  readonly settled: (
    outcomes: ReadonlyMap<bigint, SignalledOutcome>,
    settled: ReadonlySet<bigint>,
    settleMs: number,
  ) => void;
  /** The batch could not be settled: its lease runs out, and another claim sends it again. */
  readonly lost: (error: unknown) => void;
};

export type ClaimedBatch = { readonly claimBatchId: string; readonly events: readonly SignalledEvent[] };

export type WorkerSignals = {
  readonly claimed: (
    batch: ClaimedBatch,
    startedAt: number,
    claimMs: number,
    claimMode: "atomic" | "non_atomic",
  ) => BatchSignals;
  readonly reclaimed: (
    rows: readonly {
      id: bigint;
      op: string;
      from: string | null;
      claimBatchId: string | null;
      why: string;
      status: string;
      reclaimCount: number;
    }[],
  ) => void;
  readonly leaseNotRenewed: (claimBatchId: string, held: number, of: number) => void;
  readonly backlogRead: (backlog: {
    lag: number;
    processing: number;
    stuck: number;
    failed: number;
    oldestAgeSeconds: number;
  }) => void;
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

export type WorkerIdentity = {
  readonly projection: "search" | "chronicle";
  readonly workerId: string;
  readonly esIndex: string | null;
  readonly projectionVersion: number;
};

const maxLinks = 128;

function shared(values: readonly string[], mixed = "mixed"): string {
  const [first = "none", ...rest] = new Set(values);
  return rest.length === 0 ? first : mixed;
}

/** The batch's result, from those of its events: one decision, made once. */
function batchResult(outcomes: readonly SignalledOutcome[]): "ok" | "partial" | "retry" | "failed" {
  // Released is not done either: it will be tried again.
  const bad = outcomes.filter(({ outcome }) => outcome.kind !== "done");
  if (bad.length === 0) return "ok";
  if (bad.length < outcomes.length) return "partial";
  return bad.some(({ outcome }) => outcome.kind === "fail") ? "failed" : "retry";
}

export function workerSignals(
  sinks: Sinks,
  identity: WorkerIdentity,
  known: { readonly ops: readonly string[]; readonly reasons: readonly string[] },
): WorkerSignals {
  const { metrics, tracing } = sinks;
  const projection = projections[identity.projection];
  const log = sinks.log.child({
    layer: "worker",
    projection,
    worker_id: identity.workerId,
    projection_version: identity.projectionVersion,
  });
  const at = { projection };
  const base: Attributes = {
    "wordloom.obs_schema": obsSchema,
    projection: identity.projection,
    "wordloom.projection": projection,
    "wordloom.worker_id": identity.workerId,
    "wordloom.worker.id": identity.workerId,
    projection_version: identity.projectionVersion,
  };
  startAtZero(metrics, projection, known);

  // The same object each time: what is counted is found by it.
  const opLabels = new Map<string, { readonly projection: string; readonly op: string }>();
  const byOp = (op: string) => {
    const known = opLabels.get(op);
    if (known) return known;
    const labels = { ...at, op };
    opLabels.set(op, labels);
    return labels;
  };

  function tellEvent(
    event: SignalledEvent,
    told: SignalledOutcome,
    claimBatchId: string,
    startedAt: number,
    batchSpan: Span | undefined,
    settleAge: number,
    tally: Tally,
  ): void {
    const { op } = event;
    const { outcome } = told;
    const failed = outcome.kind === "retry" || outcome.kind === "fail";
    const result = outcome.kind === "done" ? "ok" : outcome.kind === "fail" ? "failed" : outcome.kind;
    const span =
      batchSpan &&
      tracing.tracer.startSpan(
        "outbox.process",
        { kind: SpanKind.CONSUMER, startTime: startedAt, links: [{ context: batchSpan.spanContext() }] },
        contextOf(event),
      );
    if (span?.isRecording()) {
      span.setAttributes({
        ...base,
        "wordloom.claim_batch_id": claimBatchId,
        "wordloom.outbox_event_id": event.id.toString(),
        "wordloom.entity_type": event.entityType,
        "wordloom.entity_id": event.entityId,
        "wordloom.outbox_op": op,
        "wordloom.outbox_event_version": event.eventVersion.toString(),
        "wordloom.outbox_attempts": event.attempts,
        "wordloom.outbox_age_seconds": settleAge,
        result,
        reason: outcome.reason ?? "none",
        ...(identity.esIndex === null ? {} : { "wordloom.es_index": identity.esIndex }),
        ...(told.errorType == null ? {} : { "error.type": told.errorType }),
        ...(outcome.result === undefined ? {} : { "wordloom.outbox_result": outcome.result }),
        ...(told.noopReason === undefined
          ? {}
          : { "wordloom.idempotent_noop": true, "wordloom.idempotent_noop_reason": told.noopReason }),
        // The chronicle's spans are also searched by the names of drill H.
        ...(identity.projection === "chronicle"
          ? {
              "wordloom.outbox.id": event.id.toString(),
              "wordloom.entity.type": event.entityType,
              "wordloom.entity.id": event.entityId,
              "wordloom.outbox.op": op,
            }
          : {}),
        ...told.labs,
      });
      if (failed) span.setStatus({ code: SpanStatusCode.ERROR, message: outcome.reason ?? "unknown" });
    }
    const fields = () => ({
      event: "outbox.process",
      outbox_event_id: event.id.toString(),
      claim_batch_id: claimBatchId,
      entity_type: event.entityType,
      entity_id: event.entityId,
      op,
      attempt: event.attempts,
      result,
      reason: outcome.reason ?? "none",
      ...(told.errorType == null ? {} : { error_type: told.errorType }),
      ...(outcome.error === undefined ? {} : { error: outcome.error }),
      ...traceKeys(span),
    });
    const doc = `${event.entityType}:${event.entityId}`;
    switch (outcome.kind) {
      case "done":
        tally.add("outbox_processed_total", byOp(op));
        metrics.observe("outbox_event_age_seconds", at, settleAge, sampledTraceId(span));
        if (told.noopReason !== undefined) {
          tally.add("outbox_idempotent_noop_total", { ...at, op, reason: told.noopReason });
          log.warn(fields(), `Outbox ${op}: doc <${doc}> not found in ES (noop)`);
        } else if (told.warning !== undefined) {
          log.warn({ ...fields(), warning: told.warning }, `Outbox ${op}: <${doc}> is not on every copy`);
        } else if (outcome.result === "superseded") {
          tally.add("outbox_superseded_total", byOp(op));
          if (log.isLevelEnabled("debug")) log.debug(fields(), `Outbox ${op}: <${doc}> superseded`);
        } else if (log.isLevelEnabled(span ? "info" : "debug")) {
          log[span ? "info" : "debug"](fields(), `Outbox ${op}: ${op === "delete" ? "deleted" : "indexed"} <${doc}>`);
        }
        break;
      case "retry":
      case "fail": {
        const reason = outcome.reason ?? "unknown_exception";
        tally.add("outbox_failed_total", { ...at, op, reason });
        tally.add(outcome.kind === "retry" ? "outbox_retry_scheduled_total" : "outbox_terminal_failed_total", {
          ...at,
          op,
          reason,
        });
        if (outcome.kind === "retry") log.warn(fields(), `Outbox ${op}: <${doc}> will be tried again`);
        else log.error(fields(), `Outbox ${op}: <${doc}> failed for good`);
        break;
      }
      case "release":
        log.warn(fields(), `Outbox ${op}: <${doc}> released`);
        break;
      default:
        outcome.kind satisfies never;
    }
    span?.end();
  }

  return {
    claimed: ({ claimBatchId, events }, startedAt, claimMs, claimMode) => {
      const claimedAt = startedAt + claimMs;
      // Ages go on by the monotonic clock: the wall clock may be set.
      const claimedTick = performance.now();
      const entityType = shared(events.map((e) => e.entityType));
      const op = shared(events.map((e) => e.op));
      const attempt = events.reduce((most, e) => Math.max(most, e.attempts), 0);
      metrics.observe("outbox_batch_size", at, events.length);
      metrics.observe("outbox_claim_duration_seconds", at, claimMs / 1000);
      const batchKeys = { "wordloom.claim_batch_id": claimBatchId, batch_size: events.length };
      let loop: Span | undefined;
      let span: Span | undefined;
      if (tracing.enabled) {
        loop = tracing.tracer.startSpan(
          "outbox_worker.loop",
          { startTime: startedAt, attributes: { ...base, ...batchKeys } },
          contextOf({ traceparent: null, tracestate: null }),
        );
        const inLoop = trace.setSpan(context.active(), loop);
        tracing.tracer
          .startSpan(
            "outbox.claim_batch",
            {
              startTime: startedAt,
              attributes: { ...base, ...batchKeys, claim_mode: claimMode, claimed: events.length },
            },
            inLoop,
          )
          .end(claimedAt);
        const producers = events.flatMap((e) => {
          const producer = trace.getSpanContext(contextOf(e));
          return producer ? [{ context: producer }] : [];
        });
        span = tracing.tracer.startSpan(
          "projection.process_batch",
          {
            startTime: claimedAt,
            links: producers.slice(0, maxLinks),
            attributes: {
              ...base,
              ...batchKeys,
              entity_type: entityType,
              op,
              attempt,
              mode: identity.projection === "search" ? "es_bulk" : "sql",
              "wordloom.links_dropped": Math.max(0, producers.length - maxLinks),
            },
          },
          inLoop,
        );
      }
      const keys = { claim_batch_id: claimBatchId, batch_size: events.length, ...traceKeys(span) };
      log.info({ event: "outbox.claim_batch", ...keys, claimed: events.length, claim_mode: claimMode });
      return {
        run: (work) => (span ? context.with(trace.setSpan(context.active(), span), work) : work()),
        bulkSent: (request) => {
          const failedItems = request.items.filter((i) => i.failureClass !== null).length;
          metrics.add("outbox_es_bulk_requests_total", { ...at, result: request.result });
          if (request.result === "failed") metrics.add("outbox_es_bulk_failed_requests_total", at);
          metrics.observe(
            "outbox_es_bulk_request_duration_seconds",
            at,
            request.durationMs / 1000,
            sampledTraceId(span),
          );
          const tally = metrics.tally();
          const labels = {
            index: {
              success: { ...at, op: "index", result: "success" },
              failed: { ...at, op: "index", result: "failed" },
            },
            delete: {
              success: { ...at, op: "delete", result: "success" },
              failed: { ...at, op: "delete", result: "failed" },
            },
          };
          for (const item of request.items) {
            tally.add("outbox_es_bulk_items_total", labels[item.op][item.failureClass === null ? "success" : "failed"]);
            if (item.failureClass !== null)
              tally.add("outbox_es_bulk_item_failures_total", {
                ...at,
                op: item.op,
                failure_class: item.failureClass,
              });
          }
          tally.flush();
          if (!span) return;
          const client = tracing.tracer.startSpan(
            `bulk ${request.index}`,
            {
              kind: SpanKind.CLIENT,
              startTime: request.startedAt,
              attributes: {
                ...base,
                ...batchKeys,
                "db.system.name": "elasticsearch",
                "db.operation.name": "bulk",
                "db.collection.name": request.index,
                ...(request.items.length > 1 ? { "db.operation.batch.size": request.items.length } : {}),
                "wordloom.bulk.failed_count": failedItems,
                result: request.result,
                ...(request.error === undefined ? {} : { "error.type": request.error }),
              },
            },
            trace.setSpan(context.active(), span),
          );
          if (request.result === "failed") client.setStatus({ code: SpanStatusCode.ERROR });
          client.end(request.startedAt + request.durationMs);
        },
        settled: (outcomes, settled, settleMs) => {
          const ours = events.flatMap((event) => {
            const told = settled.has(event.id) ? outcomes.get(event.id) : undefined;
            return told ? [{ event, told }] : [];
          });
          const settledOutcomes = ours.map(({ told }) => told);
          const mismatches = outcomes.size - ours.length;
          const waitedSeconds = (performance.now() - claimedTick) / 1000;
          metrics.observe("outbox_settle_duration_seconds", at, settleMs / 1000);
          if (mismatches > 0) metrics.add("outbox_owner_mismatch_skips_total", at, mismatches);
          const tally = metrics.tally();
          for (const { event, told } of ours)
            tellEvent(event, told, claimBatchId, claimedAt, span, event.ageSeconds + waitedSeconds, tally);
          tally.flush();
          const count = (kind: SignalledOutcome["outcome"]["kind"]) =>
            settledOutcomes.filter(({ outcome }) => outcome.kind === kind).length;
          // While the target is away events are still settled as superseded by newer ones, which wait: no success.
          if (settledOutcomes.some(({ outcome }) => outcome.kind === "done" && outcome.sent !== false))
            metrics.set("outbox_last_success_timestamp_seconds", at, Date.now() / 1000);
          const result = batchResult(settledOutcomes);
          const reason = shared(
            settledOutcomes.flatMap(({ outcome }) => (outcome.kind === "done" ? [] : [outcome.reason ?? outcome.kind])),
          );
          const counts = {
            ok_count: count("done"),
            retry_count: count("retry"),
            failed_count: count("fail"),
            success_count: count("done"),
            failure_count: count("retry") + count("fail"),
          };
          if (span) {
            span.setAttributes({
              result,
              reason,
              ...counts,
              owner_mismatch: mismatches,
              ...settledOutcomes.find((o) => o.labs)?.labs,
            });
            if (result === "failed") span.setStatus({ code: SpanStatusCode.ERROR, message: reason });
            span.end();
            loop?.end();
          }
          const line = {
            event: "projection.process_batch",
            ...keys,
            entity_type: entityType,
            op,
            attempt,
            mode: identity.projection === "search" ? "es_bulk" : "sql",
            result,
            reason,
            ...counts,
            owner_mismatch: mismatches,
          };
          if (result === "ok" && mismatches === 0) log.info(line);
          else log.warn(line);
        },
        lost: (error) => {
          log.error(
            { event: "projection.batch_lost", ...keys, exc_info: error },
            "the batch could not be settled; its lease will run out and it will be sent again",
          );
          if (!span) return;
          span.setAttributes({ result: "failed", reason: "unknown" });
          span.setStatus({ code: SpanStatusCode.ERROR, message: "not settled" });
          span.end();
          loop?.end();
        },
      };
    },
    reclaimed: (rows) => {
      if (rows.length === 0) return;
      for (const row of rows) {
        metrics.add("outbox_reclaimed_total", { ...at, why: row.why });
        if (row.status === "failed")
          for (const name of ["outbox_failed_total", "outbox_terminal_failed_total"] as const)
            metrics.add(name, { ...at, op: row.op, reason: "lease_expired" });
        log.warn({
          event: "outbox.reclaimed",
          outbox_event_id: row.id.toString(),
          who: identity.workerId,
          from: row.from,
          claim_batch_id: row.claimBatchId,
          why: row.why,
          result: row.status,
          reclaim_count: row.reclaimCount,
        });
      }
      log.warn(
        { event: "outbox.reclaim_batch", reclaimed: rows.length },
        `Reclaimed ${rows.length} stuck outbox events`,
      );
    },
    leaseNotRenewed: (claimBatchId, held, of) =>
      log.warn({ event: "outbox.lease_not_renewed", claim_batch_id: claimBatchId, held, batch_size: of }),
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
    breakerTurned: (state, reason) => {
      metrics.set("outbox_breaker_state", at, state === "closed" ? 0 : state === "half_open" ? 1 : 2);
      log.warn(
        { event: "outbox.breaker", state, reason: reason ?? "none" },
        state === "open" ? "the target is down: nothing is claimed but a probe" : undefined,
      );
    },
    breakerWaiting: oncePerSecond((reason: string | null, retryInMs: number) =>
      log.warn({ event: "outbox.breaker_waiting", reason: reason ?? "none", retry_in_ms: Math.round(retryInMs) }),
    ),
    hastened: (count) =>
      log.warn({ event: "outbox.hastened", count }, "the target is back: what waited for it is due at once"),
    inflightLimited: (limit) => metrics.set("outbox_inflight_limit", at, limit),
    databaseFailed: (step, reason, error) => {
      metrics.add("outbox_db_errors_total", { ...at, step, reason });
      log.warn({ event: "outbox.database_failed", step, reason, exc_info: error });
    },
    pruned: (events, tombstones) => {
      metrics.add("outbox_pruned_total", at, events);
      log.info({ event: "outbox.pruned", events, tombstones });
    },
    stateTurned: (state, reason) => log.warn({ event: "worker.state", state, reason: reason ?? "none" }),
    experiment: (message, fields) => log.warn({ event: "labs.experiment", ...fields }, message),
  };
}

function oncePerSecond<A extends unknown[]>(tell: (...args: A) => void): (...args: A) => void {
  let toldAt = Number.NEGATIVE_INFINITY;
  return (...args) => {
    if (performance.now() - toldAt < 1000) return;
    toldAt = performance.now();
    tell(...args);
  };
}

/** Every series that can come exists from the start, so that increase() sees the first failure. */
function startAtZero(
  metrics: Metrics,
  projection: string,
  { ops, reasons }: { readonly ops: readonly string[]; readonly reasons: readonly string[] },
): void {
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
  for (const why of ["lease_expired", "max_processing_seconds"])
    metrics.add("outbox_reclaimed_total", { projection, why }, 0);
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
    for (const failure_class of ["429", "4xx", "5xx", "unknown", "other"])
      metrics.add("outbox_es_bulk_item_failures_total", { projection, op, failure_class }, 0);
  }
}

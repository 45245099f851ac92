/**
 * Every metric, once: its kind, labels and help. docs/metrics.md is generated from this table. The label sets are closed; ids are never labels.
 * `from`: which process exposes it.
 */
export type Definition = {
  readonly kind: "counter" | "gauge" | "histogram";
  readonly from: "api" | "worker" | "both";
  readonly labels: readonly string[];
  readonly help: string;
  readonly buckets?: readonly number[];
};

const requestBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const statementBuckets = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5];
const ageBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 1800, 7200];

export const metricDefinitions = {
  outbox_produced_total: {
    kind: "counter",
    from: "api",
    labels: ["projection", "event_type", "entity_type"],
    help: "Events appended to a queue, counted after the commit.",
  },
  http_request_duration_seconds: {
    kind: "histogram",
    from: "api",
    labels: ["method", "route", "status"],
    help: "Duration of HTTP requests by route template.",
    buckets: requestBuckets,
  },
  db_client_connections: {
    kind: "gauge",
    from: "both",
    labels: ["pool", "state"],
    help: "Connections to Postgres by state: used (by a statement or a transaction) or idle.",
  },
  db_client_connection_max: {
    kind: "gauge",
    from: "both",
    labels: ["pool"],
    help: "Maximum number of connections to Postgres in the pool.",
  },
  db_client_connection_pending_requests: {
    kind: "gauge",
    from: "both",
    labels: ["pool"],
    help: "Statements and transactions waiting for a free connection; where `pool` is the name of a verb, requests waiting to be written together.",
  },
  outbox_processed_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "op"],
    help: "Events settled as done by this worker.",
  },
  outbox_failed_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "op", "reason"],
    help: "Failed attempts, whether or not they are retried.",
  },
  outbox_retry_scheduled_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "op", "reason"],
    help: "Failed attempts that will be retried.",
  },
  outbox_terminal_failed_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "op", "reason"],
    help: "Events failed for good; only an operator's replay revives them.",
  },
  outbox_idempotent_noop_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "op", "reason"],
    help: "Events that had nothing to do, such as a delete of an absent document.",
  },
  outbox_superseded_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "op"],
    help: "Events done because the target holds their version or a newer one, or because a newer event of the same batch covers them.",
  },
  outbox_owner_mismatch_skips_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection"],
    help: "Events that a settle did not touch because the worker no longer held their lease.",
  },
  outbox_reclaimed_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "why"],
    help: "Events reclaimed from a lease that ran out.",
  },
  outbox_db_errors_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "step", "reason"],
    help: "Statements of the worker that failed.",
  },
  outbox_pruned_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection"],
    help: "Processed events dropped by retention.",
  },
  outbox_lag_events: {
    kind: "gauge",
    from: "worker",
    labels: ["projection"],
    help: "Events waiting or being processed; failed ones do not count.",
  },
  outbox_oldest_age_seconds: {
    kind: "gauge",
    from: "worker",
    labels: ["projection"],
    help: "Age of the oldest unfinished event.",
  },
  outbox_inflight_events: { kind: "gauge", from: "worker", labels: ["projection"], help: "Events under lease." },
  outbox_stuck_processing_events: {
    kind: "gauge",
    from: "worker",
    labels: ["projection"],
    help: "Events under a lease that ran out or has lasted too long.",
  },
  outbox_failed_events: {
    kind: "gauge",
    from: "worker",
    labels: ["projection"],
    help: "Events failed for good and not yet replayed.",
  },
  outbox_last_success_timestamp_seconds: {
    kind: "gauge",
    from: "worker",
    labels: ["projection"],
    help: "When this worker last brought an event to its target.",
  },
  outbox_batch_size: {
    kind: "histogram",
    from: "worker",
    labels: ["projection"],
    help: "Events per claimed batch.",
    buckets: [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000],
  },
  outbox_claim_duration_seconds: {
    kind: "histogram",
    from: "worker",
    labels: ["projection"],
    help: "Duration of claims that found work.",
    buckets: statementBuckets,
  },
  outbox_settle_duration_seconds: {
    kind: "histogram",
    from: "worker",
    labels: ["projection"],
    help: "Duration of settles.",
    buckets: statementBuckets,
  },
  outbox_event_age_seconds: {
    kind: "histogram",
    from: "worker",
    labels: ["projection"],
    help: "Time from append to settled as done, by Postgres's clock.",
    buckets: ageBuckets,
  },
  outbox_breaker_state: {
    kind: "gauge",
    from: "worker",
    labels: ["projection"],
    help: "0 closed, 1 half-open, 2 open.",
  },
  outbox_inflight_limit: {
    kind: "gauge",
    from: "worker",
    labels: ["projection"],
    help: "Maximum number of requests in flight; lowered while the target is overloaded.",
  },
  outbox_es_bulk_requests_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "result"],
    help: "Bulk requests by result: success, partial, failed.",
  },
  outbox_es_bulk_failed_requests_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection"],
    help: "Bulk requests that failed as a whole.",
  },
  outbox_es_bulk_items_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "op", "result"],
    help: "Items of bulk requests: success, failed.",
  },
  outbox_es_bulk_item_failures_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "op", "failure_class"],
    help: "Failed items by class: 429, 4xx, 5xx, unknown, other.",
  },
  outbox_es_bulk_request_duration_seconds: {
    kind: "histogram",
    from: "worker",
    labels: ["projection"],
    help: "Duration of bulk requests.",
    buckets: [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10],
  },
  projection_rebuild_duration_seconds: {
    kind: "gauge",
    from: "worker",
    labels: ["projection"],
    help: "Duration of the last rebuild; 0 before the first.",
  },
  projection_rebuild_last_finished_timestamp_seconds: {
    kind: "gauge",
    from: "worker",
    labels: ["projection"],
    help: "When the last rebuild ended; 0 before the first.",
  },
  projection_rebuild_last_success: {
    kind: "gauge",
    from: "worker",
    labels: ["projection"],
    help: "1 when the last rebuild succeeded.",
  },
  wordloom_spans_dropped_total: {
    kind: "counter",
    from: "both",
    labels: ["reason"],
    help: "Spans that did not reach the collector.",
  },
  wordloom_build_info: {
    kind: "gauge",
    from: "both",
    labels: ["version", "revision", "bun_version"],
    help: "Always 1.",
  },
} as const satisfies Record<string, Definition>;

export type MetricName = keyof typeof metricDefinitions;

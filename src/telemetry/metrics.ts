import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

/**
 * Every metric, once: its kind, labels and help. docs/metrics.md is made from this table. The label sets are closed; ids never are labels.
 * `from`: which process shows it.
 */
type Definition = {
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
    help: "Connections to Postgres by state: used (a statement or a transaction has it) or idle.",
  },
  db_client_connection_max: {
    kind: "gauge",
    from: "both",
    labels: ["pool"],
    help: "Connections to Postgres that the pool may open.",
  },
  db_client_connection_pending_requests: {
    kind: "gauge",
    from: "both",
    labels: ["pool"],
    help: "Statements and transactions that wait for a free connection.",
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
    help: "Failed attempts, whether they are tried again or not.",
  },
  outbox_retry_scheduled_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "op", "reason"],
    help: "Attempts that will be made again.",
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
    help: "Events that found nothing left to do, such as a delete of an absent document.",
  },
  outbox_superseded_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "op"],
    help: "Events done because the target holds their version or a newer one, or because a newer event of the batch speaks for them.",
  },
  outbox_owner_mismatch_skips_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection"],
    help: "Events that a settle did not touch, because the lease had gone to somebody else.",
  },
  outbox_reclaimed_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "why"],
    help: "Events taken back from a lease that ran out.",
  },
  outbox_db_errors_total: {
    kind: "counter",
    from: "worker",
    labels: ["projection", "step", "reason"],
    help: "Statements of the worker that Postgres did not carry out.",
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
    help: "Events that wait or are being worked on; failed ones are not lag.",
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
    help: "Events under a lease that ran out or lasts too long.",
  },
  outbox_failed_events: {
    kind: "gauge",
    from: "worker",
    labels: ["projection"],
    help: "Events failed for good and not replayed.",
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
    help: "From append to settled as done, by Postgres's clock: freshness.",
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
    help: "Requests that may be in flight; lowered while the target is overloaded.",
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
type Of<Kind extends Definition["kind"]> = {
  [N in MetricName]: (typeof metricDefinitions)[N]["kind"] extends Kind ? N : never;
}[MetricName];
type Labels<N extends MetricName> = Readonly<Record<(typeof metricDefinitions)[N]["labels"][number], string>>;

export type Metrics = {
  readonly add: <N extends Of<"counter">>(name: N, labels: Labels<N>, count?: number) => void;
  readonly set: <N extends Of<"gauge">>(name: N, labels: Labels<N>, value: number) => void;
  /** Asks for the value of a gauge at each scrape. */
  readonly read: <N extends Of<"gauge">>(name: N, labels: Labels<N>, value: () => number) => void;
  /** `traceId` becomes the exemplar of the bucket. */
  readonly observe: <N extends Of<"histogram">>(name: N, labels: Labels<N>, value: number, traceId?: string) => void;
  /**
   * Adds many single counts at once: a batch of 500 events has a handful of label sets, each given as the same object whenever possible. Nothing is counted until `flush`.
   */
  readonly tally: () => Tally;
  /** The page for a scrape, in the format that its Accept header asks for. */
  readonly render: (accept: string | null) => Promise<{ readonly contentType: string; readonly body: string }>;
};

export type Tally = {
  readonly add: <N extends Of<"counter">>(name: N, labels: Labels<N>) => void;
  readonly flush: () => void;
};

type Kinds = { counter: Counter; gauge: Gauge; histogram: Histogram };

/** A registry of its own for each process role, so that an API does not show empty worker metrics. */
export function openMetrics(role: "api" | "worker" | "both"): Metrics {
  const registry = new Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE | typeof Registry.PROMETHEUS_CONTENT_TYPE>();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  collectDefaultMetrics({ register: registry as Registry });
  // Under Bun the figures of the heap are nearly empty, and each scrape of them walks all of it (measured: 20 ms). One of the defaults has no samples there, and three are
  // gauges named like counters, which promtool refuses.
  for (const name of [
    "nodejs_heap_size_total_bytes",
    "nodejs_heap_size_used_bytes",
    "nodejs_external_memory_bytes",
    "nodejs_heap_space_size_total_bytes",
    "nodejs_heap_space_size_used_bytes",
    "nodejs_heap_space_size_available_bytes",
    "nodejs_active_handles_total",
    "nodejs_active_requests_total",
    "nodejs_active_resources_total",
    "nodejs_gc_duration_seconds",
  ])
    registry.removeSingleMetric(name);
  const made = new Map<string, Kinds[keyof Kinds]>();
  for (const [name, d] of Object.entries(metricDefinitions) as [MetricName, Definition][]) {
    if (role !== "both" && d.from !== "both" && d.from !== role) continue;
    const base = { name, help: d.help, labelNames: [...d.labels], registers: [registry as Registry] };
    if (d.kind === "counter") made.set(name, new Counter(base));
    else if (d.kind === "gauge") made.set(name, new Gauge(base));
    else made.set(name, new Histogram({ ...base, buckets: [...(d.buckets ?? [])], enableExemplars: true }));
  }
  // Rendering OpenMetrics strips `_total` from the name of every counter, for good: put it back before the next page.
  const named = registry.getMetricsAsArray().map((metric) => ({ metric, name: metric.name }));
  let rendering: Promise<unknown> = Promise.resolve();
  const counter = (name: MetricName) => made.get(name) as Counter | undefined;
  /** Histograms by their labels, by identity: finding the child costs more than counting. */
  const children = new Map<MetricName, WeakMap<object, ReturnType<Histogram["labels"]>>>();
  const childOf = (name: MetricName, labels: Readonly<Record<string, string>>) => {
    const known = children.get(name)?.get(labels);
    if (known) return known;
    const child = (made.get(name) as Histogram | undefined)?.labels(labels);
    if (child) children.set(name, (children.get(name) ?? new WeakMap<object, typeof child>()).set(labels, child));
    return child;
  };
  const asked: (() => void)[] = [];
  const set: Metrics["set"] = (name, labels, value) => (made.get(name) as Gauge | undefined)?.set(labels, value);
  return {
    add: (name, labels, count = 1) => counter(name)?.inc(labels, count),
    set,
    read: (name, labels, value) => void asked.push(() => set(name, labels, value())),
    observe: (name, labels, value, traceId) => {
      if (traceId === undefined) childOf(name, labels)?.observe(value);
      else (made.get(name) as Histogram | undefined)?.observe({ labels, value, exemplarLabels: { trace_id: traceId } });
    },
    tally: () => {
      const counts = new Map<Of<"counter">, Map<Readonly<Record<string, string>>, number>>();
      return {
        add: (name, labels) => {
          const of = counts.get(name) ?? new Map<Readonly<Record<string, string>>, number>();
          counts.set(name, of.set(labels, (of.get(labels) ?? 0) + 1));
        },
        flush: () => {
          for (const [name, of] of counts) for (const [labels, count] of of) counter(name)?.inc(labels, count);
          counts.clear();
        },
      };
    },
    render: (accept) => {
      const contentType = accept?.includes("application/openmetrics-text")
        ? Registry.OPENMETRICS_CONTENT_TYPE
        : Registry.PROMETHEUS_CONTENT_TYPE;
      // One scrape after the other: the format is a property of the registry.
      const page = rendering.then(async () => {
        registry.setContentType(contentType);
        for (const { metric, name } of named) metric.name = name;
        for (const ask of asked) ask();
        return { contentType, body: await registry.metrics() };
      });
      rendering = page.catch(() => undefined);
      return page;
    },
  };
}

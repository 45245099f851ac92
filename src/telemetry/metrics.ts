import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { type Definition, type MetricName, metricDefinitions } from "./metric-definitions.ts";

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
   * Counts and observations of many events at once: a batch of 500 has a handful of label sets, each given as the same object whenever possible. Nothing is counted until
   * `flush`. Of what is observed in a histogram the largest value that has a trace becomes the exemplar: one for each event costs more than all else that is counted of it.
   */
  readonly tally: () => Tally;
  /** The page for a scrape, in the format that its Accept header asks for. */
  readonly render: (accept: string | null) => Promise<{ readonly contentType: string; readonly body: string }>;
};

export type Tally = {
  readonly add: <N extends Of<"counter">>(name: N, labels: Labels<N>) => void;
  readonly observe: Metrics["observe"];
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
  const observe: Metrics["observe"] = (name, labels, value, traceId) => {
    if (traceId === undefined) childOf(name, labels)?.observe(value);
    else (made.get(name) as Histogram | undefined)?.observe({ labels, value, exemplarLabels: { trace_id: traceId } });
  };
  return {
    add: (name, labels, count = 1) => counter(name)?.inc(labels, count),
    set,
    read: (name, labels, value) => void asked.push(() => set(name, labels, value())),
    observe,
    tally: () => {
      const counts = new Map<Of<"counter">, Map<Readonly<Record<string, string>>, number>>();
      const observed = new Map<Of<"histogram">, Parameters<Metrics["observe"]>[]>();
      return {
        observe: (...seen) => {
          const of = observed.get(seen[0]);
          if (of) of.push(seen);
          else observed.set(seen[0], [seen]);
        },
        add: (name, labels) => {
          const of = counts.get(name) ?? new Map<Readonly<Record<string, string>>, number>();
          counts.set(name, of.set(labels, (of.get(labels) ?? 0) + 1));
        },
        flush: () => {
          for (const [name, of] of counts) for (const [labels, count] of of) counter(name)?.inc(labels, count);
          counts.clear();
          for (const of of observed.values()) {
            let largest: (typeof of)[number] | undefined;
            for (const seen of of)
              if (seen[3] !== undefined && (largest === undefined || seen[2] > largest[2])) largest = seen;
            for (const seen of of) observe(seen[0], seen[1], seen[2], seen === largest ? seen[3] : undefined);
          }
          observed.clear();
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

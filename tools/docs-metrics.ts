/** Writes docs/metrics.md from the table in src/telemetry/metric-definitions.ts; a test compares the two. */
import { join } from "node:path";
import { metricDefinitions } from "../src/telemetry/metric-definitions.ts";

const shown = { api: "API", worker: "worker", both: "API and worker" } as const;

/** The page, complete. */
export function metricsPage(): string {
  const rows = Object.entries(metricDefinitions).map(
    ([name, metric]) =>
      `| \`${name}\` | ${metric.kind} | ${metric.labels.map((label) => `\`${label}\``).join(", ")} | ${shown[metric.from]} | ${metric.help} |`,
  );
  const buckets = Object.entries(metricDefinitions).flatMap(([name, metric]) =>
    "buckets" in metric ? [`| \`${name}\` | ${metric.buckets.join(" ")} |`] : [],
  );
  return `${[
    "# Metrics",
    "",
    "Made from the registry by `bun tools/docs-metrics.ts`.",
    "",
    "The API answers `GET /metrics` on its own port, a worker on `OUTBOX_METRICS_PORT`: the Prometheus text format, or OpenMetrics with exemplars where the",
    "scraper asks for it. An exemplar is the `trace_id` of a sampled trace.",
    "",
    "Label sets are closed: no id, path or message ever is a label. `projection` is `search_index_to_elastic` or `chronicle_events_to_entries`; `reason` is why",
    "an attempt failed, the same word as in the row's `error_reason`, the span's and the log line's `reason`. `env` and `component` come from the scrape",
    "(`docker/prometheus/prometheus.yml`). Every worker shows the same gauges of one queue: reduce them by `max`, not by `sum`.",
    "",
    "| Metric | Kind | Labels | Shown by | What it says |",
    "|---|---|---|---|---|",
    ...rows,
    "",
    "Upper bounds of the buckets, in the unit of the name:",
    "",
    "| Histogram | Buckets |",
    "|---|---|",
    ...buckets,
    "",
    "Each process also shows `process_*` (CPU, memory, file descriptors, start) and `nodejs_*` (event loop lag, heap), as prom-client makes them.",
    "",
    "All of them are in the dashboard `Wordloom • Outbox + ES Bulk`; what rings, and what to do then, is in [runbooks](runbooks/README.md).",
  ].join("\n")}\n`;
}

if (import.meta.main) await Bun.write(join(import.meta.dir, "../docs/metrics.md"), metricsPage());

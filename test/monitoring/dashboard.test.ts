import { expect, test } from "bun:test";
import { projections } from "../../src/events.ts";
import { alerts, dashboard, panels, read, rules } from "../support/monitoring.ts";

/** Titles, queries and units of the operator documents, in their order. Queries may have more at their end. */
const promised: readonly (readonly [string, readonly string[], string])[] = [
  ["Produced (API) /s", ['sum by (env) (rate(outbox_produced_total{component="api", env=~"$env"}[1m]))'], "ops"],
  [
    "Processed (Worker) /s by op",
    ['sum by (env, op) (rate(outbox_processed_total{component="worker", env=~"$env"}[1m]))'],
    "ops",
  ],
  ["Failed (Worker) /s", ['sum by (env) (rate(outbox_failed_total{component="worker", env=~"$env"}[1m]))'], "ops"],
  [
    "Retry scheduled (Worker) /s",
    [
      'sum by (env) (rate(outbox_retry_scheduled_total{component="worker", env=~"$env", projection=~"$projection"}[1m]))',
    ],
    "ops",
  ],
  ["Lag events (Worker)", ['max by (env) (outbox_lag_events{component="worker", env=~"$env"})'], "short"],
  [
    "Terminal failed (Worker) /s",
    [
      'sum by (env) (rate(outbox_terminal_failed_total{component="worker", env=~"$env", projection=~"$projection"}[1m]))',
    ],
    "ops",
  ],
  ["Oldest outbox age (Worker)", ['max by (env) (outbox_oldest_age_seconds{component="worker", env=~"$env"})'], "s"],
  ["Inflight events (Worker)", ['max by (env) (outbox_inflight_events{component="worker", env=~"$env"})'], "short"],
  [
    "Rebuild duration (Search projection)",
    ['max by (env) (projection_rebuild_duration_seconds{component="worker", env=~"$env", projection=~"$projection"})'],
    "s",
  ],
  [
    "Rebuild last success (Search projection)",
    ['max by (env) (projection_rebuild_last_success{component="worker", env=~"$env", projection=~"$projection"})'],
    "short",
  ],
  [
    "Worker last success time (unix ts)",
    [
      'max by (env) (outbox_last_success_timestamp_seconds{component="worker", env=~"$env", projection=~"$projection"})',
    ],
    "dateTimeAsIso",
  ],
  [
    "ES Bulk request p95 (Worker)",
    [
      'histogram_quantile(0.95, sum by (le, env) (rate(outbox_es_bulk_request_duration_seconds_bucket{component="worker", env=~"$env", projection=~"$projection"}[5m])))',
    ],
    "s",
  ],
  [
    "ES Bulk requests /s by result (Worker)",
    [
      'sum by (env, result) (rate(outbox_es_bulk_requests_total{component="worker", env=~"$env", projection=~"$projection"}[1m]))',
    ],
    "ops",
  ],
  [
    "Net rate (processed - produced) /s",
    [
      'sum by (env) (rate(outbox_processed_total{component="worker", env=~"$env"}[1m])) - sum by (env) (rate(outbox_produced_total{component="api", env=~"$env"}[1m]))',
    ],
    "ops",
  ],
  [
    "429 ratio (bulk item failures / items)",
    [
      'sum by (env) (rate(outbox_es_bulk_item_failures_total{component="worker", env=~"$env", projection=~"$projection", failure_class="429"}[1m])) / clamp_min(sum by (env) (rate(outbox_es_bulk_items_total{component="worker", env=~"$env", projection=~"$projection"}[1m])), 1e-9)',
      "vector(0.01)",
    ],
    "percentunit",
  ],
  [
    "ES Bulk items /s (success vs failed)",
    [
      'sum by (env, op) (rate(outbox_es_bulk_items_total{component="worker", env=~"$env", projection=~"$projection", result="success"}[1m]))',
      'sum by (env, op) (rate(outbox_es_bulk_items_total{component="worker", env=~"$env", projection=~"$projection", result="failed"}[1m]))',
    ],
    "ops",
  ],
  [
    "ES Bulk item failures /s by failure_class (Worker)",
    [
      'sum by (env, failure_class) (rate(outbox_es_bulk_item_failures_total{component="worker", env=~"$env", projection=~"$projection"}[1m]))',
    ],
    "ops",
  ],
  [
    "Stuck processing events (Worker)",
    ['max by (env) (outbox_stuck_processing_events{component="worker", env=~"$env", projection=~"$projection"})'],
    "short",
  ],
];

const titled = (title: string) => {
  const panel = panels.find((p) => p.title === title);
  if (!panel) throw new Error(`no panel "${title}"`);
  return panel;
};

test("the dashboard is found where the operator documents look for it", () => {
  expect(dashboard.uid).toBe("wordloom-outbox-bulk");
  expect(dashboard.title).toBe("Wordloom • Outbox + ES Bulk");
  expect(dashboard.refresh).toBe("5s");
  expect(dashboard.time.from).toBe("now-15m");
  // An id belongs to one Grafana's database.
  expect(dashboard.id).toBeUndefined();
  const provider = Bun.YAML.parse(read("docker/grafana/provisioning/dashboards/dashboards.yml")) as {
    providers: { folder: string; options: { path: string } }[];
  };
  expect(provider.providers.map((p) => p.folder)).toEqual(["Wordloom"]);
  expect(read("docker-compose.infra.yml")).toContain(
    `./docker/grafana/dashboards:${provider.providers[0]?.options.path}:ro`,
  );
});

test("its first row holds the panels of the operator documents with their titles, queries and units", () => {
  expect(panels.slice(0, promised.length).map((p) => p.title)).toEqual(promised.map(([title]) => title));
  for (const [title, queries, unit] of promised) {
    const panel = titled(title);
    const found = (panel.targets ?? []).map((target) => target.expr);
    expect(found.length, title).toBe(queries.length);
    for (const [i, query] of queries.entries()) expect(found[i]?.startsWith(query), `${title}: ${found[i]}`).toBe(true);
    expect(panel.fieldConfig?.defaults.unit, title).toBe(unit);
    expect(panel.type, title).toBe("timeseries");
  }
});

test("both variables are there, and the list of projections has the chronicle", () => {
  const queries = Object.fromEntries(dashboard.templating.list.map(({ name, query }) => [name, query.query]));
  expect(queries).toEqual({
    env: 'label_values(up{job=~"wordloom-.*"}, env)',
    projection: "label_values(outbox_lag_events, projection)",
  });
  // Both workers show the gauge; the one of bulk requests is the search's alone.
  expect(Object.values(projections)).toHaveLength(2);
});

test("every panel has a description, a unit, a legend and a place of its own", () => {
  const cells = new Set<string>();
  for (const panel of dashboard.panels)
    for (let x = panel.gridPos.x; x < panel.gridPos.x + panel.gridPos.w; x++)
      for (let y = panel.gridPos.y; y < panel.gridPos.y + panel.gridPos.h; y++) {
        expect(cells.has(`${x},${y}`), panel.title).toBe(false);
        cells.add(`${x},${y}`);
      }
  for (const panel of panels) {
    expect(panel.description ?? "", panel.title).toMatch(/\w.{15,}/);
    expect(panel.fieldConfig?.defaults.unit, panel.title).toBeTruthy();
    expect(panel.datasource?.uid, panel.title).toBe("prometheus");
    for (const target of panel.targets ?? []) expect(target.legendFormat, panel.title).toBeTruthy();
  }
  expect(new Set(panels.map((p) => p.title)).size).toBe(panels.length);
  expect(new Set(dashboard.panels.map((p) => p.id)).size).toBe(dashboard.panels.length);
});

test("a threshold is the alert's", () => {
  const limits = (alert: string) =>
    alerts.filter((rule) => rule.alert === alert).map((rule) => Number(/ > ([\d.]+)/.exec(rule.expr)?.[1]));
  const drawn = (title: string) =>
    (titled(title).fieldConfig?.defaults.thresholds.steps ?? []).flatMap(({ value }) =>
      value === null ? [] : [value],
    );
  for (const [title, alert] of [
    ["Oldest outbox age (Worker)", "OutboxOldestAgeTooHigh"],
    ["Oldest age by projection", "OutboxOldestAgeTooHigh"],
    ["Lag events (Worker)", "OutboxLagGrowing"],
    ["Lag by projection", "OutboxLagGrowing"],
    ["Stuck processing events (Worker)", "OutboxStuckProcessing"],
    ["Terminal failed (Worker) /s", "OutboxTerminalFailures"],
    ["Terminal failures in 15 minutes by reason", "OutboxTerminalFailures"],
    ["Breaker state", "OutboxBreakerOpen"],
    ["Spans dropped /s by reason", "WordloomSpansDropped"],
  ] as const)
    expect(drawn(title), title).toEqual(limits(alert));
  expect(rules.length).toBeGreaterThan(alerts.length);
});

test("a dot on a duration panel opens its trace in Jaeger", () => {
  type DataSource = {
    uid: string;
    url: string;
    type: string;
    jsonData?: { exemplarTraceIdDestinations?: { name: string; datasourceUid: string }[] };
  };
  const { datasources } = Bun.YAML.parse(read("docker/grafana/provisioning/datasources/datasources.yml")) as {
    datasources: DataSource[];
  };
  const [prometheus, jaeger] = datasources;
  expect(prometheus?.uid).toBe("prometheus");
  expect(prometheus?.jsonData?.exemplarTraceIdDestinations?.map((d) => [d.name, d.datasourceUid])).toEqual([
    ["trace_id", "jaeger"],
  ]);
  expect([jaeger?.uid, jaeger?.type, jaeger?.url]).toEqual(["jaeger", "jaeger", "http://jaeger:16686"]);
  for (const title of ["ES Bulk request p95 (Worker)", "Freshness: append to done", "API duration"])
    expect(
      titled(title).targets?.every((target) => target.exemplar),
      title,
    ).toBe(true);
});

import { expect, test } from "bun:test";
import { readConfig, variables } from "../../src/config.ts";
import { eventTypes, projections } from "../../src/events.ts";
import { poolOpened } from "../../src/telemetry/database-signals.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { type MetricName, metricDefinitions } from "../../src/telemetry/metric-definitions.ts";
import { openMetrics } from "../../src/telemetry/metrics.ts";
import { apiSignals } from "../../src/telemetry/request-signals.ts";
import { spansDropped } from "../../src/telemetry/signals.ts";
import { dropReasons, openTracing } from "../../src/telemetry/tracing.ts";
import { workerSignals } from "../../src/telemetry/worker-signals.ts";
import { metricsPage } from "../../tools/docs-metrics.ts";
import {
  alerts,
  blocks,
  dashboard,
  metricsNamedIn,
  panels,
  read,
  recorded,
  rules,
  runbooks,
} from "../support/monitoring.ts";

/** The metrics of the operator documents with their labels. Dashboards and drills elsewhere ask for them by these names. */
const promised: Readonly<Record<string, readonly string[]>> = {
  outbox_produced_total: ["event_type", "entity_type"],
  outbox_processed_total: ["projection", "op"],
  outbox_failed_total: ["projection", "op", "reason"],
  outbox_retry_scheduled_total: ["projection", "op", "reason"],
  outbox_terminal_failed_total: ["projection", "op", "reason"],
  outbox_idempotent_noop_total: ["projection", "op", "reason"],
  outbox_owner_mismatch_skips_total: ["projection"],
  outbox_lag_events: ["projection"],
  outbox_oldest_age_seconds: ["projection"],
  outbox_inflight_events: ["projection"],
  outbox_stuck_processing_events: ["projection"],
  outbox_last_success_timestamp_seconds: ["projection"],
  projection_rebuild_duration_seconds: ["projection"],
  projection_rebuild_last_finished_timestamp_seconds: ["projection"],
  projection_rebuild_last_success: ["projection"],
  outbox_es_bulk_requests_total: ["projection", "result"],
  outbox_es_bulk_failed_requests_total: ["projection"],
  outbox_es_bulk_items_total: ["projection", "op", "result"],
  outbox_es_bulk_item_failures_total: ["projection", "op", "failure_class"],
  outbox_es_bulk_request_duration_seconds: ["projection"],
};

const registry = Object.keys(metricDefinitions) as MetricName[];
const page = (await openMetrics("both").render(null)).body;
/** With the metrics of the process, which prom-client defines. */
const shown = new Set([...page.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name));
const panelQueries = panels.flatMap((panel) => (panel.targets ?? []).map((target) => target.expr));

test("every metric of the operator documents exists, spelled the same, with their labels", () => {
  for (const [name, labels] of Object.entries(promised)) {
    const definition = registry.find((known) => known === name);
    expect(definition, name).toBeDefined();
    if (definition)
      expect(metricDefinitions[definition].labels as readonly string[], name).toEqual(
        expect.arrayContaining([...labels]),
      );
  }
});

test("every counter has its series at 0 before anything has happened, so that increase() sees the first of each kind", async () => {
  const metrics = openMetrics("both");
  const config = readConfig({});
  const tracing = openTracing(config, "api", "0", spansDropped(metrics, { warn: () => undefined }));
  const sinks = { log: openLog(config, "test", { write: () => undefined }), metrics, tracing };
  apiSignals(sinks);
  for (const projection of ["search", "chronicle"] as const)
    workerSignals(sinks, { projection, workerId: "w1", esIndex: null, projectionVersion: 1 });
  const samples = (await metrics.render(null)).body.split("\n").filter((line) => !line.startsWith("#"));
  for (const name of registry.filter((known) => metricDefinitions[known].kind === "counter")) {
    const series = samples.filter((line) => line.startsWith(`${name}{`));
    expect(series.length, name).toBeGreaterThan(0);
    expect(
      series.filter((line) => !line.endsWith(" 0")),
      name,
    ).toEqual([]);
  }
  for (const projection of Object.values(projections)) {
    for (const [type, entity] of Object.entries(eventTypes))
      expect(samples).toContain(
        `outbox_produced_total{projection="${projection}",event_type="${type.replace("_soft_", "_").replace("_", ".")}",entity_type="${entity}"} 0`,
      );
    for (const step of ["claim", "prepare", "send", "renew", "settle", "hasten", "reclaim", "backlog", "prune"])
      for (const reason of ["db_contention", "db_unavailable", "unknown_exception"])
        expect(samples).toContain(
          `outbox_db_errors_total{projection="${projection}",step="${step}",reason="${reason}"} 0`,
        );
  }
});

test("a scrape shows the pool as it is at that moment", async () => {
  const metrics = openMetrics("api");
  let state = { max: 3, used: 1, idle: 1, pending: 0 };
  poolOpened(metrics, "wordloom-api", () => state);
  const shownNow = async () =>
    (await metrics.render(null)).body.split("\n").filter((line) => line.startsWith("db_client_"));
  expect(await shownNow()).toEqual([
    'db_client_connections{pool="wordloom-api",state="used"} 1',
    'db_client_connections{pool="wordloom-api",state="idle"} 1',
    'db_client_connection_max{pool="wordloom-api"} 3',
    'db_client_connection_pending_requests{pool="wordloom-api"} 0',
  ]);
  state = { max: 3, used: 3, idle: 0, pending: 7 };
  expect((await shownNow()).map((line) => line.split(" ")[1])).toEqual(["3", "0", "3", "7"]);
});

test("docs/metrics.md is what tools/docs-metrics.ts writes", () => {
  expect(read("docs/metrics.md")).toBe(metricsPage());
});

test("panels, rules, variables and runbooks name no metric that does not exist", () => {
  const texts = [
    ...panelQueries,
    ...panels.map((panel) => panel.description ?? ""),
    ...rules.map((rule) => rule.expr),
    ...dashboard.templating.list.map((variable) => variable.query.query),
    ...runbooks.values(),
    read("docs/runbooks/README.md"),
  ];
  const unknown = texts.flatMap(metricsNamedIn).filter((name) => !shown.has(name));
  expect(unknown).toEqual([]);
});

test("every metric is in a panel, itself or as a recorded one", () => {
  const used = recorded.filter((rule) => panelQueries.some((query) => query.includes(rule.record)));
  const graphed = new Set([...panelQueries, ...used.map((rule) => rule.expr)].flatMap(metricsNamedIn));
  expect(registry.filter((name) => !graphed.has(name))).toEqual([]);
});

test("every label that a query asks for is one that the metric has", () => {
  const queries = [...panelQueries, ...rules.map((rule) => rule.expr), ...blocks("promql").map((block) => block.text)];
  for (const query of queries)
    for (const [, series = "", selector = ""] of query.matchAll(/([a-z_0-9]+)\{([^}]*)\}/g)) {
      const name = registry.find((known) => known === series.replace(/_(bucket|count|sum)$/, ""));
      if (!name) continue;
      const known: readonly string[] = [...metricDefinitions[name].labels, "env", "component", "instance", "le"];
      for (const [, label = ""] of selector.matchAll(/([a-z_]+)\s*(?:=~|!~|!=|=)/g))
        expect(known, query).toContain(label);
    }
});

test("recorded metrics are asked for, and those that are asked for are recorded", () => {
  const asked = [...panelQueries, ...rules.map((rule) => rule.expr)].join("\n");
  for (const { record } of recorded) expect(asked).toContain(record);
  const names = [...asked.matchAll(/[a-z_]+:[a-z0-9_]+:[a-z0-9_]+/g)].map(([name]) => name);
  for (const name of names) expect(recorded.map((rule) => rule.record)).toContain(name);
});

test("every alert has its runbook, and the index lists exactly the alerts", () => {
  const names = [...new Set(alerts.map((rule) => rule.alert))].toSorted();
  expect([...runbooks.keys()].toSorted()).toEqual(names);
  const listed = [...read("docs/runbooks/README.md").matchAll(/^\| \[(\w+)\]\((\w+)\.md\)/gm)];
  expect(listed.map(([, name]) => name ?? "").toSorted()).toEqual(names);
  for (const [, name, file] of listed) expect(file).toBe(name);
});

test("a runbook says what it means, the query, the trace search, the log filter, the rows and the remedy", () => {
  for (const [alert, text] of runbooks) {
    expect(
      [...text.matchAll(/^## (.+)$/gm)].map(([, title]) => title),
      alert,
    ).toEqual(["What it means", "Query", "Traces", "Log", "Rows", "Remedy"]);
    expect(text.startsWith(`# ${alert}\n`)).toBe(true);
    for (const [, link = ""] of text.matchAll(/\]\((\w+)\.md\)/g)) expect(runbooks.has(link), link).toBe(true);
  }
});

test("log filters and trace searches use events and keys that the signals write", () => {
  const names = [
    "signals",
    "database-signals",
    "worker-signals",
    "reclaim-signals",
    "batch-signals",
    "bulk-signals",
    "event-signals",
  ];
  const signals = names.map((name) => read(`src/telemetry/${name}.ts`)).join("\n");
  const sources = `${signals}${read("src/telemetry/keys.ts")}`;
  for (const { text } of blocks("sh")) {
    for (const [, event = ""] of text.matchAll(/\.event == "([^"]+)"/g)) expect(signals).toContain(`event: "${event}"`);
    // Jaeger's own word for the status of a span.
    for (const [, tags = ""] of text.matchAll(/'tags=(\{[^']+\})'/g))
      for (const key of Object.keys(JSON.parse(tags) as Record<string, string>))
        if (key !== "error") expect(sources).toContain(key.includes(".") ? `"${key}"` : key);
    for (const [, operation = ""] of text.matchAll(/operation=([\w.]+)/g)) expect(sources).toContain(`"${operation}"`);
    for (const [, service = ""] of text.matchAll(/service=([\w-]+)/g)) expect(sources).toContain(`"${service}"`);
  }
});

test("what operators are told to set is a variable that is read", () => {
  const known = variables.flatMap(({ name, alias }) => [name, alias]);
  const texts = [
    ...runbooks.values(),
    read("docs/runbooks/README.md"),
    read("docs/metrics.md"),
    read("docker-compose.infra.yml"),
    read("docker/prometheus/prometheus.yml"),
    ...panels.map((p) => p.description ?? ""),
  ];
  for (const text of texts)
    for (const [name] of text.matchAll(/\b(OUTBOX|WORDLOOM|ELASTIC|OTEL|API)_[A-Z0-9_]+\b/g))
      if (!["OUTBOX_EXPERIMENT_", "OUTBOX_EVENT_ID"].includes(name)) expect(known, text).toContain(name);
});

test("every reason for a lost span is on the page from the start, so that the first loss is an increase", async () => {
  const metrics = openMetrics("worker");
  spansDropped(metrics, { warn: () => undefined });
  const lines = (await metrics.render(null)).body
    .split("\n")
    .filter((line) => line.startsWith("wordloom_spans_dropped_total"));
  expect(lines).toEqual(dropReasons.map((reason) => `wordloom_spans_dropped_total{reason="${reason}"} 0`));
});

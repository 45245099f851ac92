import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { alerts, blocks, panels, prometheusFolder, read, recorded, withAll } from "../support/monitoring.ts";
import { type MovingMetrics, startMovingMetrics } from "../support/moving-metrics.ts";
import {
  type Prometheus,
  prometheusAtHand,
  promtool,
  type Sample,
  startPrometheus,
  tellMissing,
} from "../support/prometheus.ts";

/** The queries of the operator documents, as they stand there. */
const documented = [
  'sum by (env, projection) (rate(outbox_retry_scheduled_total{component="worker"}[1m]))',
  'sum by (env, projection) (rate(outbox_failed_total{component="worker"}[1m]))',
  'max by (env, projection) (outbox_lag_events{component="worker"})',
  'max by (env, projection) (outbox_oldest_age_seconds{component="worker"})',
  'max by (env, projection) (outbox_stuck_processing_events{component="worker"})',
  'histogram_quantile(0.95, sum by (le, env) (rate(outbox_es_bulk_request_duration_seconds_bucket{component="worker"}[5m])))',
  'sum by (env, projection, reason) (rate(outbox_retry_scheduled_total{component="worker"}[1m]))',
  'sum by (env) (rate(outbox_es_bulk_item_failures_total{component="worker", failure_class="429"}[1m]))',
  'sum by (env, projection) (rate(outbox_terminal_failed_total{component="worker"}[1m]))',
  'sum by (env, projection) (rate(outbox_processed_total{component="worker"}[1m]))',
  'sum by (env, result) (rate(outbox_es_bulk_requests_total{component="worker"}[1m]))',
  'max by (env, projection) (outbox_inflight_events{component="worker"})',
  'outbox_retry_scheduled_total{reason="es_429"}',
  'outbox_retry_scheduled_total{reason="es_connect"}',
  'outbox_failed_total{reason="es_connect"}',
  'outbox_idempotent_noop_total{projection="search_index_to_elastic",op="delete",reason="es_404"}',
  'outbox_lag_events{component="worker"}',
  'outbox_oldest_age_seconds{component="worker"}',
  'outbox_inflight_events{component="worker"}',
  'outbox_retry_scheduled_total{component="worker"}',
  'outbox_terminal_failed_total{component="worker"}',
  "outbox_es_bulk_failed_requests_total",
  "outbox_owner_mismatch_skips_total",
  // Ideas of an alert there.
  "outbox_oldest_age_seconds > 300",
  "outbox_stuck_processing_events > 0",
];

const queries: ReadonlyMap<string, string> = new Map([
  ...documented.map((query) => [`operator documents: ${query}`, query] as const),
  ...panels.flatMap((panel) =>
    (panel.targets ?? []).map(({ expr }, i) => [`panel ${panel.title} (${i})`, withAll(expr)] as const),
  ),
  ...alerts.map((rule) => [`alert ${rule.alert} (${rule.labels?.["severity"]})`, rule.expr] as const),
  ...recorded.map((rule) => [`recorded ${rule.record}`, rule.record] as const),
  ...blocks("promql").map(({ alert, text }, i) => [`runbook ${alert} (${i})`, text] as const),
]);

/** The scrape's own rules for a process that is API and worker. */
const relabelling = (
  Bun.YAML.parse(read("docker/prometheus/prometheus.yml")) as { scrape_configs: { metric_relabel_configs?: unknown }[] }
).scrape_configs[0]?.metric_relabel_configs;

/** Asks again and again until it is so, for at most 25 s; what was not so by then the caller's expectations tell. */
async function until(done: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 25_000;
  while (!(await done()) && performance.now() < deadline) await Bun.sleep(250);
}

if (!prometheusAtHand) tellMissing("queries of panels, alerts and runbooks were");
else
  describe("against a real Prometheus that scrapes an API and workers on a hard day", () => {
    let moving: MovingMetrics;
    let prometheus: Prometheus;
    let folder: string;

    beforeAll(async () => {
      moving = startMovingMetrics();
      folder = await mkdtemp(join(tmpdir(), "wordloom-prometheus-"));
      const job = (name: string, target: string, env: string, component: string) =>
        `  - {job_name: wordloom-${name}, static_configs: [{targets: ["${target}"], labels: {env: ${env}, component: ${component}}}]}`;
      await Bun.write(
        join(folder, "prometheus.yml"),
        [
          "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}",
          `rule_files: ["${prometheusFolder}/rules/*.yml"]`,
          "storage: {exemplars: {max_exemplars: 10000}}",
          "scrape_configs:",
          job("api", moving.api, "dev", "api"),
          job("worker", moving.worker, "dev", "worker"),
          job("idle", moving.idle, "test", "worker"),
          job("mortal", moving.mortal, "sandbox", "worker"),
          job("all", moving.all, "prod", "api").replace(
            /\}$/,
            `, metric_relabel_configs: ${JSON.stringify(relabelling)}}`,
          ),
        ].join("\n"),
      );
      prometheus = await startPrometheus(join(folder, "prometheus.yml"), folder);
    }, 60_000);

    afterAll(async () => {
      await prometheus?.stop();
      await moving?.stop();
      await rm(folder, { recursive: true, force: true });
    });

    test("every query of panels, alerts, runbooks and operator documents answers with data", async () => {
      await until(async () => (await prometheus.query('outbox_lag_events{env="sandbox"} > 0')).length > 0);
      await moving.killMortal();
      let empty = [...queries];
      await until(async () => {
        const answers = await Promise.all(empty.map(([, query]) => prometheus.query(query)));
        empty = empty.filter((_, i) => answers[i]?.length === 0);
        return empty.length === 0;
      });
      expect(empty).toEqual([]);
    }, 55_000);

    test("what one process shows of API and worker is told apart", async () => {
      for (const [series, component] of [
        ["outbox_produced_total", "api"],
        ["http_request_duration_seconds_count", "api"],
        ["outbox_lag_events", "worker"],
        ["outbox_event_age_seconds_bucket", "worker"],
        ["projection_rebuild_last_success", "worker"],
      ] as const) {
        const found = await prometheus.query(`count by (component) (${series}{env="prod"})`);
        expect(
          found.map((sample) => sample.metric["component"]),
          series,
        ).toEqual([component]);
      }
    });

    test("a query of rates and quantiles answers with numbers other than 0", async () => {
      const still = [];
      for (const [name, query] of queries) {
        if (!query.includes("rate(") || query.includes("unless")) continue;
        const values = (await prometheus.query(query)).map((sample) => Number(sample.value[1]));
        if (!values.some((value) => Number.isFinite(value) && value !== 0)) still.push(name);
      }
      expect(still).toEqual([]);
    }, 20_000);

    test("alerts that wait for nothing are firing, the others are pending", async () => {
      const names = [...new Set(alerts.map((rule) => rule.alert))].toSorted();
      let active: readonly Sample[] = [];
      const ringing = () => [...new Set(active.map((sample) => sample.metric["alertname"] ?? ""))].toSorted();
      await until(async () => {
        active = await prometheus.query("ALERTS");
        return ringing().length === names.length;
      });
      expect(ringing()).toEqual(names);
      const firing = active.filter((sample) => sample.metric["alertstate"] === "firing");
      expect(firing.map((sample) => sample.metric["alertname"])).toContain("OutboxTerminalFailures");
      // The one that died, and not the one that is merely idle.
      const gone = active.filter((sample) => sample.metric["alertname"] === "OutboxWorkerGone");
      expect(gone.map((sample) => sample.metric["env"])).toEqual(["sandbox"]);
      const idle = active.filter((sample) => sample.metric["alertname"] === "OutboxNoSuccess");
      expect(idle.map((sample) => sample.metric["env"])).toEqual(["test"]);
    }, 30_000);

    test("a dot on a duration panel is a trace id", async () => {
      for (const panel of panels)
        for (const { expr, exemplar } of panel.targets ?? []) {
          if (!exemplar) continue;
          const now = Date.now() / 1000;
          const { data } = (await prometheus.get(
            `/api/v1/query_exemplars?query=${encodeURIComponent(withAll(expr))}&start=${now - 600}&end=${now + 1}`,
          )) as { data: { exemplars: { labels: { trace_id?: string } }[] }[] };
          const traces = data.flatMap((series) => series.exemplars.map((e) => e.labels.trace_id ?? ""));
          expect(traces.length, panel.title).toBeGreaterThan(0);
          for (const trace of traces) expect(trace).toMatch(/^[0-9a-f]{32}$/);
        }
    }, 20_000);

    test("the pages of a hard day are clean text, and OpenMetrics with exemplars and an end", async () => {
      for (const target of [moving.api, moving.worker]) {
        const text = await fetch(`http://${target}/metrics`, { headers: { accept: "text/plain" } });
        expect(text.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
        const { code, output } = await promtool(["check", "metrics"], { input: await text.text() });
        expect({ code, output }).toEqual({ code: 0, output: "" });

        const open = await fetch(`http://${target}/metrics`, {
          headers: { accept: "application/openmetrics-text;version=1.0.0,text/plain;q=0.5" },
        });
        expect(open.headers.get("content-type")).toStartWith("application/openmetrics-text; version=1.0.0");
        const body = await open.text();
        expect(body).toEndWith("# EOF\n");
        expect(body).toMatch(/_bucket\{[^}]*\} \d+ # \{trace_id="[0-9a-f]{32}"\} /);
      }
    }, 20_000);
  });

const jq = Bun.which("jq");
if (jq === null) process.stderr.write("no jq on PATH: the log filters of the runbooks were not checked\n");
else
  test("every log filter of the runbooks finds lines of a hard day", async () => {
    const moving = startMovingMetrics();
    const log = moving.log();
    await moving.stop();
    const filters = blocks("sh").flatMap(({ alert, text }) =>
      [...text.matchAll(/jq -c '([^']+)'/g)].map(([, filter = ""]) => ({ alert, filter })),
    );
    expect(new Set(filters.map(({ alert }) => alert)).size).toBe(new Set(alerts.map((rule) => rule.alert)).size);
    for (const { alert, filter } of filters) {
      const run = Bun.spawnSync([jq, "-c", filter], { stdin: Buffer.from(log) });
      expect(run.exitCode, `${alert}: ${run.stderr.toString()}`).toBe(0);
      expect(run.stdout.toString().trim(), `${alert}: ${filter}`).not.toBe("");
    }
  });

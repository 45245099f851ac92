import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { startLoad } from "../support/load.ts";
import { alerts, blocks, panels, prometheusFolder, recorded, withAll } from "../support/monitoring.ts";
import type { Process } from "../support/processes.ts";
import {
  configurePrometheus,
  type Prometheus,
  prometheusAtHand,
  promtool,
  startPrometheus,
  tellMissing,
} from "../support/prometheus.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

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

/** What an alert looks at, whether it is bad or not. */
const withoutComparison = (expr: string) => expr.replaceAll(/ > [\d.]+/g, "");

const queries: ReadonlyMap<string, string> = new Map([
  ...documented.map((query) => [`operator documents: ${query}`, withoutComparison(query)] as const),
  ...panels.flatMap((panel) =>
    (panel.targets ?? []).map(({ expr }, i) => [`panel ${panel.title} (${i})`, withAll(expr)] as const),
  ),
  ...alerts.map(
    (rule) => [`alert ${rule.alert} (${rule.labels?.["severity"]})`, withoutComparison(rule.expr)] as const,
  ),
  ...recorded.map((rule) => [`recorded ${rule.record}`, rule.record] as const),
  ...blocks("promql").map(({ alert, text }, i) => [`runbook ${alert} (${i})`, text] as const),
]);
/** Those that speak of a worker that is gone. */
const ofTheGone = new Map([...queries].filter(([, query]) => query.includes("unless")));
const ofTheLiving = new Map([...queries].filter(([name]) => !ofTheGone.has(name)));

const jq = Bun.which("jq");
if (jq === null) process.stderr.write("no jq on PATH: the log filters of the runbooks were not checked\n");
if (!prometheusAtHand) tellMissing("queries of panels, alerts and runbooks were");
else
  describe("against a real Prometheus that scrapes the product's processes for a hard minute", () => {
    let stage: Stage;
    let prometheus: Prometheus;
    let folder: string;
    let api: Process;
    let workers: Record<"w1" | "w2" | "w3", Process>;
    let load: ReturnType<typeof startLoad>;

    /** Waits until the query has an answer other than 0. */
    const moved = (query: string) =>
      until(query, async () => (await prometheus.query(query)).some(({ value }) => Number(value[1]) > 0), 90_000, 250);

    /** Asks until each query has answered; with rates and quantiles, until it has answered a number other than 0. */
    async function answered(asked: ReadonlyMap<string, string>): Promise<void> {
      const open = new Map(asked);
      const answer = async ([name, query]: readonly [string, string]) => {
        const values = (await prometheus.query(query)).map(({ value }) => Number(value[1]));
        const moves = query.includes("rate(") && !query.includes("unless");
        if (moves ? values.some((value) => Number.isFinite(value) && value !== 0) : values.length > 0)
          open.delete(name);
      };
      const left = () => `an answer to ${JSON.stringify(Object.fromEntries(open), null, 2)}`;
      await until(
        left,
        async () => {
          await Promise.all([...open].map(answer));
          return open.size === 0;
        },
        120_000,
        500,
      );
    }

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "wordloom-prometheus-"));
      // Nobody listens at that address: every span is lost.
      const nowhere = { WORDLOOM_TRACING_ENABLED: "1", OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1" };
      stage = await openStage({
        ...nowhere,
        DATABASE_STATEMENT_TIMEOUT_MS: "1000",
        OUTBOX_LEASE_SECONDS: "2",
        OUTBOX_RECLAIM_INTERVAL_SECONDS: "0.5",
        OUTBOX_DONE_RETENTION_HOURS: "0.001",
        OUTBOX_EXPERIMENT_ES_429_RATIO: "0.2",
        // Long enough for another worker to take it away meanwhile.
        OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS: "0.3",
      });
      const [serve, up, w1, w2, w3] = await Promise.all([
        stage.serve(),
        stage.up(),
        stage.work("w1"),
        stage.work("w2", {
          OUTBOX_EXPERIMENT_BREAK_CLAIM: "1",
          OUTBOX_EXPERIMENT_BREAK_CLAIM_SLEEP_SECONDS: "0.1",
          OUTBOX_EXPERIMENT_ES_BULK_PARTIAL: "1",
        }),
        stage.work("w3", { OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS: "3600" }),
      ]);
      api = serve;
      workers = { w1, w2, w3 };
      const config = await configurePrometheus(
        folder,
        [`${prometheusFolder}/rules/*.yml`],
        [
          { name: "api", address: new URL(api.url).host, env: "test", component: "api" },
          { name: "up", address: new URL(up.url).host, env: "dev", component: "api" },
          ...Object.keys(workers).map((name) => {
            const address = stage.metricsOf(name);
            return { name, address, env: "test", component: "worker" } as const;
          }),
        ],
      );
      prometheus = await startPrometheus(config, folder);
      const body = JSON.stringify({ name: "of the one process", color: "#FFFFFF" });
      expect((await fetch(`${up.url}/api/v1/tags`, { method: "POST", body })).status).toBe(201);
      load = startLoad(api.url, 10);
    }, 60_000);

    afterAll(async () => {
      await load?.stop();
      await prometheus?.stop();
      await stage?.close();
      await rm(folder, { recursive: true, force: true });
    }, 60_000);

    test("every query of panels, alerts, runbooks and operator documents answers with data", async () => {
      const all = answered(ofTheLiving);
      // What is seen to fail here must not wait until the end.
      all.catch(() => undefined);
      await moved('sum(rate(outbox_processed_total{env="test"}[5s]))');

      await until("the worker that will die to have work in hand", async () => {
        const [row] = await stage.db.execute(
          sql`select from search_outbox_events where owner = 'w3' and status = 'processing' limit 1`,
        );
        return row !== undefined;
      });
      workers.w3.kill("SIGKILL");
      await moved("sum(increase(outbox_reclaimed_total[1m]))");

      await stage.db.transaction(async (tx) => {
        await tx.execute(sql`lock table search_outbox_events_live in access exclusive mode`);
        await moved('sum(increase(outbox_db_errors_total{step="reclaim"}[1m]))');
      });

      await stage.stopEngine();
      await moved("outbox_breaker_state");
      await moved('sum(increase(http_request_duration_seconds_count{status="503"}[1m]))');
      await stage.startEngine();
      await all;
    }, 180_000);

    test("what one process shows of API and worker is told apart", async () => {
      for (const [series, component] of [
        ["outbox_produced_total", "api"],
        ["http_request_duration_seconds_count", "api"],
        ["outbox_lag_events", "worker"],
        ["outbox_event_age_seconds_bucket", "worker"],
        ["projection_rebuild_last_success", "worker"],
      ] as const) {
        const found = await prometheus.query(`count by (component) (${series}{env="dev"})`);
        expect(
          found.map((sample) => sample.metric["component"]),
          series,
        ).toEqual([component]);
      }
    });

    test("the alert that waits for nothing is firing, and names its reason", async () => {
      const firing = await prometheus.query('ALERTS{alertname="OutboxTerminalFailures", alertstate="firing"}');
      expect(firing.map((sample) => sample.metric["reason"])).toContain("es_4xx");
    });

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

    test("the pages of a hard minute are clean text, and OpenMetrics with exemplars and an end", async () => {
      for (const target of [new URL(api.url).host, stage.metricsOf("w1")]) {
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

    test("the queries for workers that are gone answer when they are", async () => {
      for (const { kill } of [workers.w1, workers.w2]) kill("SIGKILL");
      await answered(ofTheGone);
      for (const query of ofTheGone.values())
        for (const { metric } of await prometheus.query(query)) expect(metric["env"]).toBe("test");
    }, 130_000);

    if (jq !== null)
      test("every log filter of the runbooks finds lines of the hard minute", () => {
        const log = [api, ...Object.values(workers)].flatMap(({ lines }) =>
          lines.filter((line) => line.startsWith("{")),
        );
        const filters = blocks("sh").flatMap(({ alert, text }) =>
          [...text.matchAll(/jq -c '([^']+)'/g)].map(([, filter = ""]) => ({ alert, filter })),
        );
        expect(new Set(filters.map(({ alert }) => alert)).size).toBe(new Set(alerts.map((rule) => rule.alert)).size);
        for (const { alert, filter } of filters) {
          const run = Bun.spawnSync([jq, "-c", filter], { stdin: Buffer.from(log.join("\n")) });
          expect(run.exitCode, `${alert}: ${run.stderr.toString()}`).toBe(0);
          expect(run.stdout.toString().trim(), `${alert}: ${filter}`).not.toBe("");
        }
      }, 20_000);
  });

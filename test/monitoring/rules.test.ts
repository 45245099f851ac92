import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { openMetrics } from "../../src/telemetry/metrics.ts";
import { alerts, prometheusFolder, read } from "../support/monitoring.ts";
import { prometheusAtHand, promtool, tellMissing } from "../support/prometheus.ts";
import { scaleRules } from "../support/scaled-rules.ts";

type Case = {
  readonly name: string;
  readonly input_series: readonly { readonly series: string }[];
  readonly alert_rule_test: readonly { readonly alertname: string; readonly exp_alerts: readonly unknown[] }[];
};

const caseFiles = readdirSync(`${prometheusFolder}/tests`);

test("every alert has cases in which it rings, keeps silent though series are there, and keeps silent without them", () => {
  expect(caseFiles.toSorted()).toEqual([...new Set(alerts.map((rule) => `${rule.alert}.yml`))].toSorted());
  for (const file of caseFiles) {
    const name = file.replace(/\.yml$/, "");
    const { tests } = Bun.YAML.parse(read(`docker/prometheus/tests/${file}`)) as { tests: Case[] };
    expect(tests.length, file).toBeGreaterThanOrEqual(3);
    expect(tests.flatMap((t) => t.alert_rule_test).every((check) => check.alertname === name)).toBe(true);
    const rings = (t: Case) => t.alert_rule_test.some((check) => check.exp_alerts.length > 0);
    // The minute before as well: it rings then and not earlier.
    expect(
      tests.some((t) => rings(t) && t.alert_rule_test.some((check) => check.exp_alerts.length === 0)),
      file,
    ).toBe(true);
    expect(
      tests.some((t) => !rings(t) && t.input_series.length > 0),
      file,
    ).toBe(true);
    expect(
      tests.some((t) => !rings(t) && !t.input_series.some((s) => s.series.includes('component="worker"'))),
      file,
    ).toBe(true);
  }
});

test("every alert says how bad it is, what happens, what to read and where to look", () => {
  for (const { alert, labels, annotations } of alerts) {
    expect(["warning", "critical"], alert).toContain(labels?.["severity"] ?? "");
    expect(annotations?.["summary"], alert).toContain("{{ $labels.env }}");
    expect(annotations?.["description"]?.length ?? 0, alert).toBeGreaterThan(40);
    expect(annotations?.["runbook_url"]).toBe(`docs/runbooks/${alert}.md`);
    expect(annotations?.["dashboard_url"]).toStartWith(
      "http://localhost:3000/d/wordloom-outbox-bulk?var-env={{ $labels.env }}",
    );
  }
});

test("in scaled rules a minute is shorter, and nothing else differs", () => {
  const text = read("docker/prometheus/rules/alerts.yml");
  const [real, scaled] = [text, scaleRules(text, 30)].map((of) => of.split("\n"));
  const changes = real?.flatMap((line, i) => (line === scaled?.[i] ? [] : [[line.trim(), scaled?.[i]?.trim()]])) ?? [];
  const waits = changes.filter(([line]) => line?.startsWith("for: "));
  expect(waits).toHaveLength(alerts.filter((rule) => rule.for !== undefined).length);
  for (const [line, shorter] of waits) expect(shorter).toBe(`for: ${Number(line?.match(/\d+/)?.[0]) * 2000}ms`);
  const others = changes.filter((change) => !waits.includes(change));
  expect(others.map(([, shorter]) => shorter?.match(/\[\d+ms\]| > [1-9]\d*$/g)?.join(""))).toEqual([
    " > 10",
    " > 60",
    " > 10",
    "[120000ms]",
    "[10000ms]",
    "[10000ms]",
  ]);
});

test("each target is scraped once, under one environment and component", () => {
  type Job = {
    job_name: string;
    metric_relabel_configs?: unknown;
    static_configs: { targets: string[]; labels: Record<string, string> }[];
  };
  const { scrape_configs: jobs } = Bun.YAML.parse(read("docker/prometheus/prometheus.yml")) as {
    scrape_configs: Job[];
  };
  const targets = jobs.flatMap((job) => job.static_configs.flatMap((config) => config.targets));
  expect(new Set(targets).size).toBe(targets.length);
  expect(jobs.map((job) => job.job_name)).toEqual([
    "wordloom-api-dev",
    "wordloom-worker-dev",
    "wordloom-api-test",
    "wordloom-worker-test",
    "wordloom-worker-labs",
  ]);
  for (const port of [8000, 30001, 30011, 9108, 9109, 9110, 9129])
    expect(targets.filter((target) => target === `host.docker.internal:${port}`)).toHaveLength(1);
  for (const job of jobs)
    for (const { labels } of job.static_configs) {
      expect(job.metric_relabel_configs !== undefined, job.job_name).toBe(labels["component"] === "api");
      expect(["dev", "test"]).toContain(labels["env"] ?? "");
      expect(job.job_name).toContain(`-${labels["component"]}-`);
    }
});

if (!prometheusAtHand) tellMissing("rules, their cases and the pages of metrics were");
else
  describe("promtool", () => {
    test("accepts configuration and rules", async () => {
      const { code, output } = await promtool(["check", "config", "prometheus.yml"], { cwd: prometheusFolder });
      expect(code, output).toBe(0);
    });

    test("finds that every alert rings at its minute and not before", async () => {
      const { code, output } = await promtool(["test", "rules", ...caseFiles], { cwd: `${prometheusFolder}/tests` });
      expect(code, output).toBe(0);
      expect(output.match(/SUCCESS/g)).toHaveLength(caseFiles.length);
    }, 30_000);

    test.each(["api", "worker", "both"] as const)("has nothing to say of the page of %s", async (role) => {
      const { body } = await openMetrics(role).render("text/plain");
      const { code, output } = await promtool(["check", "metrics"], { input: body });
      expect({ code, output }).toEqual({ code: 0, output: "" });
    });
  });

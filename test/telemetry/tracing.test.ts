import { afterEach, describe, expect, test } from "bun:test";
import { ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { openSinks } from "../../src/app/sinks.ts";
import { readConfig } from "../../src/config.ts";
import { startCollector } from "../../src/embedded/collector/collector.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { openMetrics } from "../../src/telemetry/metrics.ts";
import { contextOf } from "../../src/telemetry/propagation.ts";
import { spansDropped, started } from "../../src/telemetry/signals.ts";
import { type DropReason, openTracing, type Tracing } from "../../src/telemetry/tracing.ts";
import { freePort } from "../support/cli.ts";
import { spanMemory } from "../support/telemetry.ts";
import { until } from "../support/until.ts";

const opened: { close: () => unknown }[] = [];
afterEach(async () => {
  for (const { close } of opened.splice(0).toReversed()) await close();
});

type Env = Readonly<Record<string, string>>;
const on = { WORDLOOM_TRACING_ENABLED: "1" };

/** Tracing as the environment asks for it, with its drops by reason. */
function open(env: Env, memory = false) {
  const drops: Record<DropReason, number> = { queue_full: 0, export_failed: 0, shutdown: 0 };
  const exporter = memory ? spanMemory() : undefined;
  const count = (reason: DropReason, dropped: number) => {
    drops[reason] += dropped;
  };
  const tracing = openTracing(readConfig(env), "api", "1", count, exporter);
  opened.push(tracing);
  return {
    tracing,
    spans: exporter?.spans ?? [],
    drops,
    dropped: () => Object.values(drops).reduce((sum, n) => sum + n, 0),
  };
}

function endSpans({ tracer }: Tracing, count: number): void {
  for (let i = 0; i < count; i++) tracer.startSpan("work", {}, ROOT_CONTEXT).end();
}

/** A collector for one test, on a port that may be named. */
async function collect(port = 0) {
  const collector = await startCollector({ dataDir: ":memory:", port });
  opened.push({ close: () => collector.stop() });
  const held = async () => {
    const reply = await fetch(`${collector.url}/api/traces?service=wordloom-api&limit=100000`);
    const { data } = (await reply.json()) as { data: { spans: unknown[] }[] };
    return data.reduce((sum, { spans }) => sum + spans.length, 0);
  };
  return { url: collector.url, held, stop: () => collector.stop() };
}

describe("sampling", () => {
  const parent = (flags: string) =>
    contextOf({ traceparent: `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-${flags}`, tracestate: null });
  const sampled = async (env: Env, context = ROOT_CONTEXT) => {
    const { tracing, spans } = open({ ...on, ...env }, true);
    tracing.tracer.startSpan("work", {}, context).end();
    await tracing.close();
    return spans.length === 1;
  };

  test.each([
    ["always_on", true, true, true],
    ["always_off", false, false, false],
    ["parentbased_always_on", true, true, false],
    ["parentbased_always_off", false, true, false],
  ])("%s decides for a root, below a sampled parent and below an unsampled one", async (sampler, root, yes, no) => {
    expect(await sampled({ OTEL_TRACES_SAMPLER: sampler })).toBe(root);
    expect(await sampled({ OTEL_TRACES_SAMPLER: sampler }, parent("01"))).toBe(yes);
    expect(await sampled({ OTEL_TRACES_SAMPLER: sampler }, parent("00"))).toBe(no);
  });

  test("a ratio keeps the same traces everywhere, whatever the parent; parent-based it only decides for roots", async () => {
    const context = (traceId: string, flags: string) =>
      contextOf({ traceparent: `00-${traceId}-b7ad6b7169203331-${flags}`, tracestate: null });
    const [low, high] = ["00000000000000000000000000000001", "ffffffff000000000000000000000000"];
    const half = { OTEL_TRACES_SAMPLER: "traceidratio", OTEL_TRACES_SAMPLER_ARG: "0.5" };
    expect(await sampled(half, context(low, "00"))).toBe(true);
    expect(await sampled(half, context(high, "01"))).toBe(false);
    const byParent = { ...half, OTEL_TRACES_SAMPLER: "parentbased_traceidratio" };
    expect(await sampled(byParent, context(low, "00"))).toBe(false);
    expect(await sampled(byParent, context(high, "01"))).toBe(true);
    expect(await sampled({ ...byParent, OTEL_TRACES_SAMPLER_ARG: "0" })).toBe(false);
    expect(await sampled({ ...byParent, OTEL_TRACES_SAMPLER_ARG: "1" })).toBe(true);
  });
});

describe("off", () => {
  const off = { enabled: false, WORDLOOM_TRACING_ENABLED: false, OTEL_SDK_DISABLED: false };

  test("by default no span is made", async () => {
    const { tracing } = open({});
    expect(await tracing.startup()).toEqual({ ...off, reason: "not_enabled" } as never);
    expect(tracing.tracer.startSpan("work").isRecording()).toBe(false);
  });

  test("OTEL_SDK_DISABLED wins over WORDLOOM_TRACING_ENABLED", async () => {
    const { tracing, spans } = open({ ...on, OTEL_SDK_DISABLED: "true" }, true);
    const both = { WORDLOOM_TRACING_ENABLED: true, OTEL_SDK_DISABLED: true };
    expect(await tracing.startup()).toEqual({ ...off, ...both, reason: "otel_sdk_disabled" } as never);
    endSpans(tracing, 3);
    expect(spans).toEqual([]);
  });
});

describe("the collector", () => {
  test("is found when it comes after the start, and each span before that is counted", async () => {
    const port = freePort();
    const { tracing, drops, dropped } = open({ ...on, OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` });
    endSpans(tracing, 700);
    await until("the spans are given up", () => dropped() === 700);
    expect(drops).toEqual({ queue_full: 0, export_failed: 700, shutdown: 0 });
    const collector = await collect(port);
    endSpans(tracing, 300);
    await until("spans arrive", async () => (await collector.held()) === 300);
    expect(dropped()).toBe(700);
  }, 30_000);

  test("may go away and come back: what it did not get is counted, to the span", async () => {
    const port = freePort();
    const { tracing, dropped } = open({ ...on, OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` });
    const first = await collect(port);
    endSpans(tracing, 500);
    await until("the first spans arrive", async () => (await first.held()) === 500);
    await first.stop();
    endSpans(tracing, 900);
    await until("the lost ones are counted", () => dropped() === 900);
    const second = await collect(port);
    endSpans(tracing, 200);
    await until("the last spans arrive", async () => (await second.held()) === 200);
    expect(dropped()).toBe(900);
  }, 30_000);

  test("gets what is left at the end", async () => {
    const collector = await collect();
    const { tracing, dropped } = open({ ...on, OTEL_EXPORTER_OTLP_ENDPOINT: collector.url });
    // More than one batch, and fewer than the slowest machine takes in two seconds.
    endSpans(tracing, 600);
    await tracing.close();
    expect(await collector.held()).toBe(600);
    expect(dropped()).toBe(0);
  });

  test("that never answers holds up nobody: the queue fills, the rest is counted, and the end comes in two seconds", async () => {
    const { promise: never } = Promise.withResolvers<Response>();
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => never });
    opened.push({ close: () => server.stop(true) });
    const { tracing, drops, dropped } = open({ ...on, OTEL_EXPORTER_OTLP_ENDPOINT: String(server.url) });
    endSpans(tracing, 20_000);
    expect(drops).toEqual({ queue_full: 20_000 - 8192, export_failed: 0, shutdown: 0 });
    const ended = await Promise.race([tracing.close().then(() => "closed"), Bun.sleep(10_000).then(() => "late")]);
    expect(ended).toBe("closed");
    expect(dropped()).toBe(20_000);
    endSpans(tracing, 5);
    expect(drops.shutdown).toBe(8192 + 5);
  }, 30_000);

  test("that answers with an error has not got the spans", async () => {
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("no", { status: 400 }) });
    opened.push({ close: () => server.stop(true) });
    const { tracing, drops } = open({ ...on, OTEL_EXPORTER_OTLP_ENDPOINT: String(server.url) });
    endSpans(tracing, 100);
    await tracing.close();
    expect(drops).toEqual({ queue_full: 0, export_failed: 100, shutdown: 0 });
  });

  test("gets the configured headers, under the configured path", async () => {
    const { promise: seen, resolve } = Promise.withResolvers<{ path: string; headers: Headers }>();
    const answer = (request: Request) => {
      resolve({ path: new URL(request.url).pathname, headers: new Headers(request.headers) });
      return Response.json({});
    };
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: answer });
    opened.push({ close: () => server.stop(true) });
    const { tracing } = open({
      ...on,
      OTEL_EXPORTER_OTLP_ENDPOINT: `${server.url.href}base/`,
      OTEL_EXPORTER_OTLP_HEADERS: "x-token=a%20b,x-team=c=d",
    });
    endSpans(tracing, 1);
    await tracing.close();
    const { path, headers } = await seen;
    expect(path).toBe("/base/v1/traces");
    expect(headers.get("x-token")).toBe("a b");
    expect(headers.get("x-team")).toBe("c=d");
  });
});

describe("at the start", () => {
  const told = async (env: Env) => {
    const lines: Record<string, unknown>[] = [];
    const config = readConfig(env);
    const log = openLog(config, "wordloom-api", { write: (line: string) => void lines.push(JSON.parse(line)) });
    const { tracing } = open(env);
    const metrics = openMetrics("api");
    await started({ log, metrics, tracing }, config, { version: "1", revision: "dev" });
    return (event: string) => lines.find((line) => line["event"] === event);
  };

  test("an OTLP/gRPC port in the endpoint is named with its remedy", async () => {
    const of = async (port: number) =>
      (await told({ ...on, OTEL_EXPORTER_OTLP_ENDPOINT: `http://localhost:${port}` }))("tracing.port_mismatch");
    expect((await of(4317))?.["message"]).toContain("4318");
    expect(await of(4318)).toBeUndefined();
  });

  test("a missing endpoint is named with its remedy", async () => {
    const line = await told(on);
    expect(line("tracing.exporter_missing")?.["message"]).toContain("OTEL_EXPORTER_OTLP_ENDPOINT");
    expect(line("tracing.startup")).toMatchObject({ collector_reachable: null, exporter_reason: "no_otlp_target" });
  });

  test("what is configured is told, without the secrets in the address, and that somebody listens there", async () => {
    using server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("{}") });
    const endpoint = `http://user:hunter2@127.0.0.1:${server.port}?key=hunter2`;
    const line = (await told({ ...on, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: endpoint }))("tracing.startup");
    const target = `http://127.0.0.1:${server.port}/`;
    expect(line).toMatchObject({
      enabled: true,
      otlp_target: target,
      otlp_target_raw: target,
      collector_reachable: true,
      exporter_configured: true,
      exporter_reason: "configured",
    });
    expect(JSON.stringify(line)).not.toContain("hunter2");
  });

  test("a collector that is not there yet is told, with what to do", async () => {
    const line = await told({ ...on, OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${freePort()}` });
    const away = { collector_reachable: false, exporter_configured: true, exporter_reason: "collector_unreachable" };
    expect(line("tracing.startup")).toMatchObject(away);
    expect(line("tracing.exporter_unreachable")?.["message"]).toContain("OTEL_EXPORTER_OTLP_ENDPOINT");
  });

  test("why no spans are made is told", async () => {
    const why = async (env: Env) => (await told(env))("tracing.disabled");
    expect(await why({})).toMatchObject({ reason: "not_enabled" });
    expect(await why({ ...on, OTEL_SDK_DISABLED: "1" })).toMatchObject({ reason: "otel_sdk_disabled" });
  });
});

test("the services of a process flush at the same time", async () => {
  const all = Promise.withResolvers<void>();
  let asked = 0;
  // Answers nobody before all three have asked: one after the other, the first would give up.
  using server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async () => {
      asked += 1;
      if (asked === 3) all.resolve();
      await all.promise;
      return new Response("{}", { headers: { "content-type": "application/json" } });
    },
  });
  const config = readConfig({ ...on, OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${server.port}` });
  const metrics = openMetrics("both");
  {
    await using resources = new AsyncDisposableStack();
    for (const service of ["api", "search", "chronicle"] as const)
      openSinks(config, service, metrics, resources).tracing.tracer.startSpan("work").end();
  }
  const { body } = await metrics.render(null);
  const drops = Array.from(body.matchAll(/^wordloom_spans_dropped_total\{.*\} (\d+)$/gm), ([, n]) => Number(n));
  expect([asked, drops]).toEqual([3, [0, 0, 0]]);
});

test("dropped spans are counted in a metric, by reason", async () => {
  const metrics = openMetrics("api");
  spansDropped(metrics, { warn: () => undefined })("export_failed", 7);
  const { body } = await metrics.render(null);
  expect(body).toContain('wordloom_spans_dropped_total{reason="export_failed"} 7');
});

test("why spans were not taken is told once a minute, by its code, without what the collector answers", async () => {
  const lines: string[] = [];
  const log = openLog(readConfig({ LOG_JSON: "1" }), "test", { write: (line: string) => void lines.push(line) });
  using server = Bun.serve({ port: 0, fetch: () => new Response("a word of the collector's", { status: 401 }) });
  const env = { ...on, OTEL_EXPORTER_OTLP_ENDPOINT: String(server.url) };
  const drop = spansDropped(openMetrics("api"), log);
  let dropped = 0;
  const tracing = openTracing(readConfig(env), "api", "1", (reason, count, error) => {
    dropped += count;
    drop(reason, count, error);
  });
  opened.push(tracing);
  endSpans(tracing, 700);
  await until("the spans are given up", () => dropped === 700);
  expect(lines.map((line): unknown => JSON.parse(line))).toMatchObject([
    { event: "tracing.export_failed", level: "warn", error: "HTTP 401" },
  ]);
  expect(lines.join("")).not.toContain("a word");
  const other = spansDropped(openMetrics("api"), log);
  other("queue_full", 3);
  other("export_failed", 3, Object.assign(new Error("connect"), { code: "ECONNREFUSED" }));
  expect(lines.slice(1).map((line): unknown => JSON.parse(line))).toMatchObject([{ count: 3, error: "ECONNREFUSED" }]);
}, 30_000);

test("an active span of another tracer does not become the parent of a root", () => {
  const { tracing } = open(on, true);
  const outer = tracing.tracer.startSpan("outer");
  const root = tracing.tracer.startSpan("root", {}, contextOf({ traceparent: null, tracestate: null }));
  expect(root.spanContext().traceId).not.toBe(outer.spanContext().traceId);
  expect(trace.getSpan(ROOT_CONTEXT)).toBeUndefined();
});

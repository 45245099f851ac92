import { Client, HttpConnection } from "@elastic/elasticsearch";
import { readConfig } from "../../src/config.ts";
import type { ClaimedEvent } from "../../src/events.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { openMetrics } from "../../src/telemetry/metrics.ts";
import { openTracing } from "../../src/telemetry/tracing.ts";
import { workerSignals } from "../../src/telemetry/worker-signals.ts";
import { type Drain, type Drained, openDrain } from "./draining.ts";
import { median } from "./machine.ts";
import { report, startElasticsearch, startStore } from "./stack.ts";

/**
 * What tracing costs a drain: off, on with every event sampled and a collector that takes all, and on with a collector that is away, comes and goes again. Three workers that
 * run all along take turns; of the spans of the last one every one has arrived or is counted as dropped.
 */
const count = Number(process.env["BENCH_EVENTS"] ?? 100_000);
const rounds = Number(process.env["BENCH_ROUNDS"] ?? 12);
const store = await startStore();
const engine = await startElasticsearch(9284);
const client = new Client({ node: engine.url, Connection: HttpConnection, maxRetries: 0, requestTimeout: 60_000 });
const parts = { store, database: store.open(), engine, client, batch: 500, inFlight: 2 };

const answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
const bodyEnd = "\r\n0\r\n\r\n";

/**
 * Takes everything, counts requests and reads none: what a collector does with spans is not our cost, and it has the same two cores here. Bodies come in chunks: the exporter
 * sends them as a stream.
 */
function startCollector(port: number) {
  let requests = 0;
  const server = Bun.listen<{ tail: string }>({
    hostname: "127.0.0.1",
    port,
    socket: {
      open: (socket) => {
        socket.data = { tail: "" };
      },
      data: (socket, bytes) => {
        socket.data.tail = (socket.data.tail + bytes.subarray(-bodyEnd.length).toString("latin1")).slice(
          -bodyEnd.length,
        );
        if (socket.data.tail !== bodyEnd) return;
        requests += 1;
        socket.write(answer);
      },
    },
  });
  return {
    port: server.port,
    requests: () => requests,
    close: () => server.stop(true),
  };
}

const dropped = (page: string, reason: string) =>
  Number(new RegExp(`^wordloom_spans_dropped_total\\{reason="${reason}"\\} (\\d+)`, "m").exec(page)?.[1] ?? 0);
const tracing = (port: number) => ({
  WORDLOOM_TRACING_ENABLED: "1",
  OTEL_TRACES_SAMPLER: "always_on",
  OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
});

/** Drains with a collector that is away, there and away, for a third of the drain each, and counts the requests that it got. */
async function comesAndGoes(away: Drain, port: number): Promise<Drained & { readonly requests: number }> {
  let collector: ReturnType<typeof startCollector> | undefined;
  let requests = 0;
  const third = (count / 15_000 / 3) * 1000;
  const timers: ReturnType<typeof setTimeout>[] = [];
  const drained = await away.drain(count, () => {
    timers.push(
      setTimeout(() => {
        collector = startCollector(port);
      }, third),
      setTimeout(() => {
        requests = collector?.requests() ?? 0;
        collector?.close();
        collector = undefined;
      }, 2 * third),
    );
  });
  for (const timer of timers) clearTimeout(timer);
  collector?.close();
  return { ...drained, requests };
}

/** CPU microseconds of one call, of many. */
function cpuUs(calls: number, work: () => void): number {
  for (let i = 0; i < calls / 5; i += 1) work();
  const before = process.cpuUsage();
  for (let i = 0; i < calls; i += 1) work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / calls;
}

/**
 * CPU microseconds of telling one settled event with tracing off, and of its metrics alone. What is left is the branches that make no span, and all else that is told with
 * them: no more than that can be had by taking the spans out.
 */
function toldUs(): { readonly told: number; readonly counted: number } {
  const config = readConfig({ LOG_JSON: "1", LOG_LEVEL: "warn" });
  const metrics = openMetrics("worker");
  const sinks = {
    log: openLog(config, "bench", { write: () => undefined }),
    metrics,
    tracing: openTracing(config, "search", "bench", () => undefined),
  };
  const identity = { projection: "search", workerId: "w1", esIndex: "wordloom", projectionVersion: 1 } as const;
  const signals = workerSignals(sinks, identity);
  const events = Array.from(
    { length: 500 },
    (_, i): ClaimedEvent => ({
      id: BigInt(i),
      entityType: "block",
      entityId: crypto.randomUUID(),
      op: "upsert",
      eventVersion: 1n,
      attempts: 0,
      countedAttempts: 0,
      ageSeconds: 0.1,
      traceparent: null,
      tracestate: null,
    }),
  );
  const ids = new Set(events.map(({ id }) => id));
  const done = { outcome: { kind: "done", result: "applied", sent: true } } as const;
  const outcomes = new Map(events.map(({ id }) => [id, done]));
  const at = { projection: identity.projection };
  const labels = { ...at, op: "upsert" };
  // With tracing off all is told in one turn.
  const told = cpuUs(
    1000,
    () =>
      void signals
        .claimed({ claimBatchId: "b", events }, { startedAt: Date.now(), tookMs: 1, limit: 500, mode: "atomic" })
        .settled(outcomes, ids, 1),
  );
  const counted = cpuUs(1000, () => {
    const tally = metrics.tally();
    for (const { ageSeconds } of events) {
      tally.add("outbox_processed_total", labels);
      tally.observe("outbox_event_age_seconds", at, ageSeconds, undefined);
    }
    tally.flush();
  });
  return { told: told / events.length, counted: counted / events.length };
}

const collector = startCollector(0);
const reserved = startCollector(0);
const off = await openDrain(parts);
const on = await openDrain({ ...parts, env: tracing(collector.port) });
const away = await openDrain({ ...parts, env: tracing(reserved.port) });
reserved.close();
const modes = {
  off: () => off.drain(count),
  on: () => on.drain(count),
  away: () => comesAndGoes(away, reserved.port),
};
type Mode = keyof typeof modes;
/** Every order of the three comes once in six rounds: none of them always follows the same. */
const orders: readonly (readonly Mode[])[] = [
  ["off", "on", "away"],
  ["away", "on", "off"],
  ["on", "away", "off"],
  ["off", "away", "on"],
  ["away", "off", "on"],
  ["on", "off", "away"],
];
const drained: Record<Mode, Drained[]> = { off: [], on: [], away: [] };
for (let round = 0; round < rounds; round += 1)
  for (const mode of orders[round % orders.length] ?? []) drained[mode].push(await modes[mode]());
/** The median over the rounds of how two modes compare. */
const compared = (one: Mode, other: Mode, compare: (a: Drained, b: Drained) => number) =>
  median(drained[one].flatMap((a, i) => drained[other].slice(i, i + 1).map((b) => compare(a, b))));
const ratio = (one: Mode, other: Mode) => compared(one, other, (a, b) => a.rate / b.rate);
const { told, counted } = toldUs();
const perEventUs = median(drained.off.map((r) => r.engineUs + r.oursUs));
await report("tracing", {
  events: count,
  rounds,
  off_per_s: median(drained.off.map((r) => r.rate)),
  on_to_off: ratio("on", "off"),
  away_to_off: ratio("away", "off"),
  away_to_on: ratio("away", "on"),
  off_us_per_event: perEventUs,
  on_us_more: compared("on", "off", (a, b) => a.oursUs - b.oursUs),
  told_us: told,
  counted_us: counted,
  told_beside_counts_to_off: (told - counted) / perEventUs,
  runs: Object.fromEntries(
    Object.entries(drained).map(([mode, runs]) => [
      mode,
      runs.map(({ metrics, ...figures }) => ({
        ...figures,
        /** Since the worker's start. */
        dropped: { queue_full: dropped(metrics, "queue_full"), export_failed: dropped(metrics, "export_failed") },
      })),
    ]),
  ),
});
for (const opened of [off, on, away]) await opened.close();
collector.close();
await parts.database.close();
await engine.close();
await store.close();

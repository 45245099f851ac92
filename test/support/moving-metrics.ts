import { ExportResultCode } from "@opentelemetry/core";
import type { SpanExporter } from "@opentelemetry/sdk-trace-base";
import { readConfig } from "../../src/config.ts";
import { eventTypes } from "../../src/library/event-types.ts";
import { ops, reasons } from "../../src/outbox/event.ts";
import type { ServiceName } from "../../src/telemetry/keys.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { type Metrics, openMetrics } from "../../src/telemetry/metrics.ts";
import {
  type ApiSignals,
  apiSignals,
  poolOpened,
  type Sinks,
  spansDropped,
  started,
} from "../../src/telemetry/signals.ts";
import { openTracing } from "../../src/telemetry/tracing.ts";
import { type SignalledOutcome, type WorkerSignals, workerSignals } from "../../src/telemetry/worker-signals.ts";

/**
 * Processes as Prometheus and a log file see them, every signal told again and again: a hard day of an API and its workers in a few seconds. The numbers come
 * from the signals themselves; only the facts that they are told are made up.
 */
export type MovingMetrics = {
  /** host:port of the pages to scrape. */
  readonly api: string;
  readonly worker: string;
  /** API and worker in one process. */
  readonly all: string;
  /** A worker that has work and never gets any done. */
  readonly idle: string;
  /** A worker that goes away with work in hand. */
  readonly mortal: string;
  readonly killMortal: () => Promise<void>;
  /** What the worker and the API have logged. */
  readonly log: () => string;
  readonly stop: () => Promise<void>;
};

/** A collector that takes nothing. */
const refuse: SpanExporter = {
  export: (_spans, done) => done({ code: ExportResultCode.FAILED }),
  shutdown: () => Promise.resolve(),
};

const failures = ["es_429", "es_4xx", "es_5xx", "es_connect"] as const;
const classOf = { es_429: "429", es_4xx: "4xx", es_5xx: "5xx", es_connect: "unknown" } as const;

function sendBatch(signals: WorkerSignals, round: number): void {
  const firstId = BigInt(round) * 100n;
  const trace = round.toString(16).padStart(32, "a");
  const events = Array.from({ length: 12 }, (_, i) => ({
    id: firstId + BigInt(i),
    entityType: "tag",
    entityId: "0192f0c1-2d3e-7f45-8a6b-9c0d1e2f3a4b",
    op: i % 2 === 0 ? "upsert" : "delete",
    eventVersion: BigInt(round),
    attempts: 1,
    ageSeconds: i,
    traceparent: `00-${trace}-b7ad6b7169203331-01`,
    tracestate: null,
  }));
  const outcomes = new Map<bigint, SignalledOutcome>(
    events.map(({ id }, i) => {
      const reason = failures[i % failures.length] ?? "es_429";
      if (i < 3) return [id, { kind: "done", result: "applied" }];
      if (i === 3) return [id, { kind: "done", result: "noop", noopReason: "es_404" }];
      if (i === 4) return [id, { kind: "done", result: "superseded" }];
      if (i === 5) return [id, { kind: "release", reason: "shutdown" }];
      return [id, { kind: i % 2 === 0 ? "retry" : "fail", reason, error: "refused", errorType: "refused_exception" }];
    }),
  );
  const batch = signals.claimed({ claimBatchId: crypto.randomUUID(), events }, Date.now() - 30, 5, "atomic");
  batch.run(() => {
    for (const result of ["success", "partial", "failed"] as const)
      batch.bulkSent({
        startedAt: Date.now() - 20,
        durationMs: 15,
        index: "wordloom-test-search-index",
        result,
        items: failures.flatMap((reason) =>
          (["index", "delete"] as const).flatMap((op) => [
            { op, failureClass: null },
            { op, failureClass: classOf[reason] },
          ]),
        ),
      });
    // One event has gone to somebody else meanwhile.
    batch.settled(outcomes, new Set(events.slice(1).map((event) => event.id)), 4);
  });
}

function workerRound(signals: WorkerSignals, round: number): void {
  sendBatch(signals, round);
  signals.reclaimed(
    (["lease_expired", "max_processing_seconds"] as const).map((why, i) => ({
      id: BigInt(round * 10 + i),
      op: "upsert",
      from: "another",
      claimBatchId: crypto.randomUUID(),
      why,
      status: i === 0 ? "pending" : "failed",
      reclaimCount: 1,
    })),
  );
  signals.backlogRead({ lag: 2000 + round * 10, processing: 12, stuck: 2, failed: 5, oldestAgeSeconds: 2400 + round });
  signals.rebuildRead({ durationSeconds: 12, finishedAt: Date.now() / 1000 - 60, success: true });
  signals.breakerTurned("open", "es_connect");
  signals.hastened(3);
  signals.inflightLimited(1);
  for (const step of ["claim", "settle", "reclaim"] as const)
    signals.databaseFailed(step, "db_contention", new Error("deadlock"));
  signals.pruned(7, 1);
  signals.stateTurned(round % 2 === 0 ? "RUNNING" : "DRAINING", "db_unhealthy");
}

function apiRound(signals: ApiSignals): void {
  for (const [method, route, status] of [
    ["POST", "/api/v1/tags", 201],
    ["POST", "/api/v1/tags", 409],
    ["GET", "/api/v1/search", 500],
  ] as const) {
    const request = signals.request(new Request(`http://localhost${route}`, { method }));
    request.run(() => request.end(route, status));
  }
  signals.appended(
    new Map([["tag_created", { eventType: "tag_created", entityType: "tag", count: 2, chronicled: 1 }]]),
  );
}

/** Serves five processes on loopback and moves them every 200 ms. */
export function startMovingMetrics(): MovingMetrics {
  const config = readConfig({ WORDLOOM_TRACING_ENABLED: "1", LOG_LEVEL: "debug", LOG_JSON: "1" });
  const lines: string[] = [];
  const closing: (() => Promise<unknown>)[] = [];
  const sinksOf = (service: ServiceName, metrics: Metrics): Sinks => {
    const tracing = openTracing(config, service, "0", spansDropped(metrics), refuse);
    closing.push(tracing.close);
    const sinks = { log: openLog(config, service, { write: (line) => void lines.push(line) }), metrics, tracing };
    started(sinks, config, { version: "0", revision: "0" });
    return sinks;
  };
  const serve = (metrics: Metrics): Bun.Server<undefined> =>
    Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: async (request) => {
        const { contentType, body } = await metrics.render(request.headers.get("accept"));
        return new Response(body, { headers: { "content-type": contentType } });
      },
    });
  const workerOf = (metrics: Metrics, projection: "search" | "chronicle") =>
    workerSignals(
      sinksOf(projection, metrics),
      { projection, workerId: "w1", esIndex: "wordloom-test-search-index", projectionVersion: 1 },
      { ops, reasons },
    );

  const [apiMetrics, workerMetrics] = [openMetrics("api"), openMetrics("worker")];
  const [idleMetrics, mortalMetrics] = [openMetrics("worker"), openMetrics("worker")];
  const allMetrics = openMetrics("both");
  const apis = [apiMetrics, allMetrics].map((metrics) => apiSignals(sinksOf("api", metrics), { eventTypes }));
  const busy = [workerMetrics, allMetrics].flatMap((metrics) => [
    workerOf(metrics, "search"),
    workerOf(metrics, "chronicle"),
  ]);
  const waiting = [workerOf(idleMetrics, "search"), workerOf(mortalMetrics, "search")];
  const servers = [apiMetrics, workerMetrics, idleMetrics, mortalMetrics, allMetrics].map(serve);
  const [apiServer, workerServer, idleServer, mortalServer, allServer] = servers.map(
    (server) => `127.0.0.1:${server.port}`,
  );

  for (const [metrics, pool] of [
    [apiMetrics, "wordloom-api"],
    [workerMetrics, "wordloom-search"],
    [allMetrics, "wordloom-up"],
  ] as const)
    poolOpened(metrics, pool, () => ({ max: 10, used: 10, idle: 0, pending: 3 }));

  let round = 0;
  const move = () => {
    round += 1;
    for (const signals of apis) apiRound(signals);
    for (const signals of busy) workerRound(signals, round);
    for (const signals of waiting)
      signals.backlogRead({ lag: 5, processing: 0, stuck: 0, failed: 0, oldestAgeSeconds: round });
  };
  move();
  const timer = setInterval(move, 200);
  return {
    api: apiServer ?? "",
    worker: workerServer ?? "",
    all: allServer ?? "",
    idle: idleServer ?? "",
    mortal: mortalServer ?? "",
    killMortal: async () => servers[3]?.stop(true),
    log: () => lines.join(""),
    stop: async () => {
      clearInterval(timer);
      await Promise.all([...servers.map((server) => server.stop(true)), ...closing.map((close) => close())]);
    },
  };
}

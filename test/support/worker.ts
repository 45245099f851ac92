import { readConfig } from "../../src/config.ts";
import type { Database } from "../../src/db/client.ts";
import type { Lease, Outcome } from "../../src/events.ts";
import { queues } from "../../src/outbox/queue.ts";
import { openWakeUps } from "../../src/outbox/wake.ts";
import { type Health, watchHealth } from "../../src/projection/health.ts";
import type { Applied, Projection } from "../../src/projection/projection.ts";
import { runWorker } from "../../src/projection/worker.ts";
import type { WorkerOptions } from "../../src/projection/worker-options.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { openMetrics } from "../../src/telemetry/metrics.ts";
import type { Sinks } from "../../src/telemetry/signals.ts";
import { openTracing } from "../../src/telemetry/tracing.ts";
import { type Recorded, recordSignals } from "./batch.ts";

/** Sinks that keep nothing. */
export function quietSinks(): Sinks {
  const config = readConfig({});
  return {
    log: openLog(config, "test", { write: () => undefined }),
    metrics: openMetrics("worker"),
    tracing: openTracing(config, "search", "test", () => undefined),
  };
}

const defaults: WorkerOptions = {
  workerId: "w1",
  batchSize: 5,
  concurrency: 1,
  pollMs: 20,
  leaseMs: 30_000,
  maxProcessingMs: 300_000,
  graceMs: 5000,
  breakClaimMs: undefined,
  processSleepMs: 0,
  patienceMs: 30,
};

/** A request that a projection under test has sent: it is answered when the test says so, or cut off by the worker. */
export type Sent = {
  readonly lease: Lease;
  readonly signal: AbortSignal;
  readonly answer: (outcome: Outcome) => void;
};

/** A projection whose target is the test. */
export function heldProjection(): {
  readonly projection: Projection;
  readonly sent: Sent[];
  prepare: () => Promise<void>;
} {
  const held: { sent: Sent[]; prepare: () => Promise<void>; projection: Projection } = {
    sent: [],
    prepare: () => Promise.resolve(),
    projection: {
      queue: queues.search,
      gatherMs: 2,
      prepare: async (lease) => {
        await held.prepare();
        return {
          send: (signal) => {
            const { promise, resolve } = Promise.withResolvers<Applied>();
            const answer = (outcome: Outcome) =>
              resolve({ decisions: new Map(lease.events.map((e) => [e.id, { outcome }])), health: { kind: "well" } });
            const cutOff = () =>
              answer({ kind: "retry", reason: "es_timeout", error: "cut off", delayMs: 0, counted: false, sent: true });
            signal.addEventListener("abort", cutOff);
            held.sent.push({ lease, signal, answer });
            return promise;
          },
        };
      },
    },
  };
  return held;
}

/** Starts a worker in this process, whose signals `recorded` keeps; `end` drains it. */
export function startWorker(
  database: Database,
  projection: Projection,
  over: Partial<WorkerOptions> = {},
  { signals }: Recorded = recordSignals(),
): { readonly end: () => Promise<void>; readonly health: Health } {
  const stop = new AbortController();
  const wakeUps = openWakeUps(database);
  const health = watchHealth(
    database.db,
    {
      projection: projection.queue.projection,
      workerId: "w1",
      maxSilenceMs: 10_000,
      pingIntervalMs: 60_000,
      pingTimeoutMs: 1000,
      failsBeforeDraining: 3,
      pingTarget: null,
    },
    signals,
  );
  const worker = { db: database.db, projection, wakeUps, options: { ...defaults, ...over }, health, signals };
  const done = runWorker(worker, stop.signal);
  return {
    health,
    end: async () => {
      stop.abort();
      await done;
      health.close();
      await wakeUps.close();
    },
  };
}

import type { Client } from "@elastic/elasticsearch";
import type { Config } from "../config.ts";
import type { Db } from "../db/client.ts";
import { queues } from "../outbox/queue.ts";
import type { WakeUps } from "../outbox/wake.ts";
import type { Sinks } from "../telemetry/signals.ts";
import { workerSignals } from "../telemetry/worker-signals.ts";
import { chronicleProjection } from "./chronicle/project.ts";
import { type BulkExperiment, bulkExperiment, faultAnnouncements } from "./experiment.ts";
import { type Health, watchHealth } from "./health.ts";
import type { Projection } from "./projection.ts";
import { searchProjection } from "./search/project.ts";
import { startSweep } from "./sweep.ts";
import { runWorker } from "./worker.ts";
import { workerOptions } from "./worker-options.ts";

/** What a projection needs of the process that runs it. */
export type ProjectionHost = {
  readonly config: Config;
  /** The pool for the work. */
  readonly db: Db;
  /** A pool of its own for pings. */
  readonly healthDb: Db;
  readonly wakeUps: WakeUps;
  readonly client: Client;
  readonly index: string;
  readonly workerId: string;
};

export type RunningProjection = {
  readonly health: Health;
  /** Resolves when the worker has drained. Never rejects. */
  readonly done: Promise<void>;
};

function createProjection(
  kind: "search" | "chronicle",
  { config, db, client, index }: ProjectionHost,
): { projection: Projection } & Pick<BulkExperiment, "announcements" | "attributes"> {
  const backoff = {
    baseMs: config.OUTBOX_BASE_BACKOFF_SECONDS * 1000,
    maxMs: config.OUTBOX_MAX_BACKOFF_SECONDS * 1000,
  };
  if (kind === "chronicle") {
    const fault = config.OUTBOX_FAULT_INJECT_KIND;
    const entityId = config.OUTBOX_FAULT_INJECT_ENTITY_ID;
    const projection = chronicleProjection(db, {
      projectionVersion: config.CHRONICLE_PROJECTION_VERSION,
      maxAttempts: config.OUTBOX_MAX_ATTEMPTS,
      backoff,
      fault: fault === undefined || entityId === undefined ? null : { kind: fault, entityId },
    });
    return { projection, announcements: faultAnnouncements(config), attributes: null };
  }
  const experiment = bulkExperiment(config);
  const projection = searchProjection(db, client, {
    index,
    maxBytes: config.OUTBOX_BULK_MAX_BYTES,
    timeoutMs: config.ELASTIC_REQUEST_TIMEOUT_MS,
    limits: { maxAttempts: config.OUTBOX_MAX_ATTEMPTS, terminalOnTransient: config.OUTBOX_TERMINAL_ON_TRANSIENT },
    backoff,
    experiment,
  });
  return { projection, announcements: experiment.announcements, attributes: experiment.attributes };
}

function pingTarget({ config, client }: ProjectionHost) {
  if (!config.OUTBOX_REQUIRE_ES_READY) return null;
  const requestTimeout = config.OUTBOX_ES_PING_TIMEOUT_SECONDS * 1000;
  const ping = () =>
    client.ping({}, { requestTimeout, maxRetries: 0 }).then(
      () => true,
      () => false,
    );
  return { ping, intervalMs: config.OUTBOX_ES_PING_INTERVAL_SECONDS * 1000 };
}

/** Starts one projection with its loop, sweep and health. It drains when `stop` fires, whose reason is "run_seconds" when OUTBOX_RUN_SECONDS are over. */
export function startProjection(
  kind: "search" | "chronicle",
  host: ProjectionHost,
  sinks: Sinks,
  stop: AbortSignal,
): RunningProjection {
  const { config, workerId } = host;
  const queue = queues[kind];
  const options = workerOptions(config, workerId);
  const { projection, announcements, attributes } = createProjection(kind, host);
  const signals = workerSignals(sinks, {
    projection: kind,
    workerId,
    esIndex: kind === "search" ? host.index : null,
    projectionVersion: config.CHRONICLE_PROJECTION_VERSION,
    labs: attributes,
  });
  for (const { message, fields } of announcements) signals.experiment(message, fields);
  if (options.processSleepMs > 0)
    signals.experiment("Processing slowed down on purpose: a sleep between claim and send", {
      sleep_ms: options.processSleepMs,
    });
  if (options.breakClaimMs !== undefined)
    signals.experiment("Claim atomicity broken on purpose: select, sleep, update", { sleep_ms: options.breakClaimMs });
  const health = watchHealth(
    host.healthDb,
    {
      projection: queue.projection,
      workerId,
      maxSilenceMs: config.OUTBOX_HEALTH_MAX_SILENCE_SECONDS * 1000,
      pingIntervalMs: config.OUTBOX_DB_PING_INTERVAL_SECONDS * 1000,
      pingTimeoutMs: config.OUTBOX_DB_PING_TIMEOUT_SECONDS * 1000,
      failsBeforeDraining: config.OUTBOX_DB_PING_FAILS_BEFORE_DRAINING,
      pingTarget: kind === "search" ? pingTarget(host) : null,
    },
    signals,
  );
  const stopSweep = startSweep(
    host.db,
    queue,
    {
      workerId,
      reclaimIntervalMs: config.OUTBOX_RECLAIM_INTERVAL_SECONDS * 1000,
      maxProcessingMs: options.maxProcessingMs,
      maxAttempts: config.OUTBOX_MAX_ATTEMPTS,
      retentionHours: config.OUTBOX_DONE_RETENTION_HOURS,
    },
    signals,
    // In this process: the loop polls at once.
    () => host.wakeUps.announce(),
  );
  const asked = () => {
    health.stopRequested(stop.reason === "run_seconds" ? "run_seconds" : "signal");
    void stopSweep();
  };
  stop.addEventListener("abort", asked);
  const done = (async () => {
    await runWorker({ db: host.db, projection, wakeUps: host.wakeUps, options, health, signals }, stop);
    await stopSweep();
    stop.removeEventListener("abort", asked);
    health.stopped();
    health.close();
  })();
  return { health, done };
}

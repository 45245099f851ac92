import { hostname } from "node:os";
import type { Client } from "@elastic/elasticsearch";
import type { WakeUps } from "../outbox/wake.ts";
import type { HealthReport } from "../projection/health.ts";
import { type RunningProjection, startProjection } from "../projection/start.ts";
import type { ServiceName } from "../telemetry/keys.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { graceExceeded, type Sinks, tracingStarted } from "../telemetry/signals.ts";
import { openSinks } from "./sinks.ts";
import { openPool, type Store } from "./store.ts";

export const projectionNames = ["search", "chronicle"] as const;
export type ProjectionName = (typeof projectionNames)[number];

export type Projections = {
  readonly running: readonly RunningProjection[];
  /** Resolves when all have drained. */
  readonly done: Promise<unknown>;
};

/** Starts projections, each with pools and signals of its own; they drain when `stop` fires. */
export function startProjections(
  names: readonly ProjectionName[],
  store: Store,
  parts: {
    client: Client;
    wakeUps: WakeUps;
    metrics: Metrics;
    workerId: string | undefined;
    /** The service that has already logged where its spans go: the others do it here. */
    told: ServiceName;
  },
  stop: AbortSignal,
  resources: AsyncDisposableStack,
): Projections {
  const { config, index } = store.settings;
  const { metrics } = parts;
  const healthDb = openPool(store, "wordloom-health", resources, { max: 2, seen: { metrics } }).db;
  // When something else of the process cannot go on, they drain before their pools are closed.
  const closing = new AbortController();
  const stopped = AbortSignal.any([stop, closing.signal]);
  const running = names.map((name) => {
    const sinks = openSinks(config, name, metrics, resources);
    if (name !== parts.told && sinks.tracing.enabled) void tracingStarted(sinks, config);
    const host = {
      config,
      // A claim or a settle that a crash of the server undid is done again: leases run out, targets keep the highest version, entries their id.
      db: openPool(store, `wordloom-${name}`, resources, { seen: sinks, commits: "redone" }).db,
      healthDb,
      wakeUps: parts.wakeUps,
      client: parts.client,
      index,
      workerId: parts.workerId ?? config.OUTBOX_WORKER_ID ?? `${hostname()}:${process.pid}`,
    };
    return startProjection(name, host, sinks, stopped);
  });
  const done = Promise.all(running.map((p) => p.done));
  resources.defer(async () => {
    closing.abort();
    await done;
  });
  return { running, done };
}

/** Reports that the grace has ended: every projection that was asked to stop logs that it has, even one that is left unfinished. */
export function tellWhenLate(late: AbortSignal, sinks: Sinks, { running }: Pick<Projections, "running">): void {
  late.addEventListener("abort", () => {
    graceExceeded(sinks);
    for (const { health } of running) health.stopped();
  });
}

/** One answer for all projections of the process: the first that is not well speaks for them, else the first. Beside it each has its own report where there are several. */
export function combine(
  reports: readonly HealthReport[],
): HealthReport & { readonly projections?: readonly HealthReport[] } {
  const [first, ...others] = reports;
  if (first === undefined) throw new Error("a worker without a projection");
  if (others.length === 0) return first;
  return { ...(reports.find((r) => !r.ok) ?? first), projections: reports };
}

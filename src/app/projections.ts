import { hostname } from "node:os";
import type { Client } from "@elastic/elasticsearch";
import type { Report } from "../http/ops.ts";
import type { WakeUps } from "../outbox/wake.ts";
import { type RunningProjection, startProjection } from "../projection/start.ts";
import type { Metrics } from "../telemetry/metrics.ts";
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
  parts: { client: Client; wakeUps: WakeUps; metrics: Metrics; workerId: string | undefined },
  stop: AbortSignal,
  resources: AsyncDisposableStack,
): Projections {
  const { config, index } = store.settings;
  const seen = { metrics: parts.metrics };
  const healthDb = openPool(store, "wordloom-health", resources, { max: 2, seen }).db;
  // When something else of the process cannot go on, they drain before their pools are closed.
  const closing = new AbortController();
  const stopped = AbortSignal.any([stop, closing.signal]);
  const running = names.map((name) => {
    const host = {
      config,
      // A claim or a settle that a crash of the server undid is done again: leases run out, targets keep the highest version, entries their id.
      db: openPool(store, `wordloom-${name}`, resources, { seen, commits: "redone" }).db,
      healthDb,
      wakeUps: parts.wakeUps,
      client: parts.client,
      index,
      workerId: parts.workerId ?? config.OUTBOX_WORKER_ID ?? `${hostname()}:${process.pid}`,
    };
    return startProjection(name, host, openSinks(config, name, parts.metrics, resources), stopped);
  });
  const done = Promise.all(running.map((p) => p.done));
  resources.defer(async () => {
    closing.abort();
    await done;
  });
  return { running, done };
}

type ProjectionReport = Report & { readonly reason: string | null };
type CombinedReport = ProjectionReport & { readonly projections: readonly ProjectionReport[] };

/** One answer for all projections of the process: the projection's own where there is one. */
export function combine(reports: readonly ProjectionReport[]): ProjectionReport | CombinedReport {
  const [only, ...others] = reports;
  if (only !== undefined && others.length === 0) return only;
  const bad = reports.find((r) => !r.ok);
  return { ok: bad === undefined, reason: bad?.reason ?? null, projections: reports };
}

import type { Config } from "../config.ts";
import { causeCodeOf } from "../errors.ts";
import { pointsAtGrpc } from "./collector-address.ts";
import { obsSchema } from "./keys.ts";
import type { Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import { sparingly } from "./sparingly.ts";
import { dropReasons, type TellDrop, type Tracing } from "./tracing.ts";

/**
 * What happens, reported once: each function writes metric, span and log line from the same arguments, so that they cannot disagree.
 * This file covers the process; request-signals.ts the requests, database-signals.ts the statements, and worker-, reclaim-, batch-, bulk- and event-signals.ts the queues.
 * No file outside of telemetry names a metric, a span, an attribute or a log event.
 */

export type Sinks = { readonly log: Log; readonly metrics: Metrics; readonly tracing: Tracing };

export type Build = { readonly version: string; readonly revision: string };

/** Logs what a process starts with, at warn so that no level hides it. */
export async function started(sinks: Sinks, config: Config, build: Build): Promise<void> {
  const { log, metrics } = sinks;
  metrics.set("wordloom_build_info", { version: build.version, revision: build.revision, bun_version: Bun.version }, 1);
  log.warn(
    { event: "observability.schema", version: build.version },
    `Observability schema: ${obsSchema} (file=${Bun.main})`,
  );
  await tracingStarted(sinks, config);
}

/** Logs where the spans of one service go. */
export async function tracingStarted({ log, tracing }: Sinks, config: Config): Promise<void> {
  const startup = await tracing.startup();
  log.warn({ event: "tracing.startup", ...startup }, startup.enabled ? "Tracing is on" : "Tracing is off");
  if (!startup.enabled) {
    log.warn(
      { event: "tracing.disabled", reason: startup.reason },
      "no spans are made; set WORDLOOM_TRACING_ENABLED=1",
    );
    return;
  }
  log.warn({ event: "tracing.config", ...startup }, `Sampled by ${startup.sampler} (${startup.sampler_arg})`);
  if (startup.otlp_target === null) {
    log.warn(
      { event: "tracing.exporter_missing" },
      "spans go nowhere; set OTEL_EXPORTER_OTLP_ENDPOINT, for example http://localhost:4318",
    );
    return;
  }
  log.warn({ event: "tracing.enabled", otlp_target: startup.otlp_target }, `spans go to ${startup.otlp_target}`);
  if (startup.collector_reachable === false)
    log.warn(
      { event: "tracing.exporter_unreachable", otlp_target: startup.otlp_target },
      "nothing listens there yet: spans are dropped and counted until something does; start it, or correct OTEL_EXPORTER_OTLP_ENDPOINT",
    );
  if (pointsAtGrpc(config))
    log.warn(
      { event: "tracing.port_mismatch" },
      "port 4317 speaks OTLP/gRPC, this exporter speaks HTTP; use port 4318 in OTEL_EXPORTER_OTLP_ENDPOINT",
    );
}

/** Elasticsearch does not answer at the start; what is written waits in the queue. */
export function searchAway({ log }: Sinks, why: string): void {
  log.warn({ event: "search.away" }, why);
}

/** The search index is new, and Postgres has documents. */
export function indexWithoutDocuments({ log }: Sinks): void {
  log.warn(
    { event: "search.index_created" },
    "the search index is new, and does not have the documents that Postgres has; `wordloom rebuild` brings them there",
  );
}

/** A worker leaves behind what has not ended in OUTBOX_SHUTDOWN_GRACE_SECONDS. */
export function graceExceeded({ log }: Sinks): void {
  log.warn({ event: "worker.grace_exceeded" }, "Shutdown grace exceeded; exiting");
}

/** The API takes requests from here on; warn, so that no level hides where. */
export function listeningAt({ log }: Sinks, url: string): void {
  log.warn({ event: "api.listening", url }, `listening at ${url}`);
}

/** The worker answers from here on; warn, so that no level hides where. */
export function workerListeningAt({ log }: Sinks, metricsUrl: string, healthUrl: string): void {
  log.warn(
    { event: "worker.listening", url: healthUrl },
    `metrics at ${metricsUrl}/metrics, health at ${healthUrl}/readyz`,
  );
}

/** A collector that is away fails twice a second. */
const tellDropsMs = 60_000;

/**
 * Returns the counter of dropped spans; each reason starts at 0, so that increase() sees the first drop. Why the collector did not take them is logged, at most once a
 * minute: of `error` its code alone, since a collector's answer may quote what it was sent.
 */
export function spansDropped(metrics: Metrics, log: Pick<Log, "warn">): TellDrop {
  for (const reason of dropReasons) metrics.add("wordloom_spans_dropped_total", { reason }, 0);
  const mayTell = sparingly();
  return (reason, count, error) => {
    metrics.add("wordloom_spans_dropped_total", { reason }, count);
    if (reason !== "export_failed" || !mayTell(tellDropsMs)) return;
    log.warn(
      { event: "tracing.export_failed", count, error: exportFailure(error) },
      "the collector did not take spans; see wordloom_spans_dropped_total, and OTEL_EXPORTER_OTLP_ENDPOINT",
    );
  };
}

/** `HTTP 401`, ECONNREFUSED. */
function exportFailure(error: Error | undefined): string | undefined {
  if (error === undefined) return undefined;
  const status: unknown = "code" in error ? error.code : undefined;
  return typeof status === "number" ? `HTTP ${status}` : (causeCodeOf(error) ?? error.name);
}

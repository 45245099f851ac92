import { context, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import type { Config } from "../config.ts";
import { pointsAtGrpc } from "./collector-address.ts";
import { obsSchema, projections } from "./keys.ts";
import { errorType, type Log, sampledTraceId, traceKeys } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import { canonicalHeaders, contextOf, headersOf, type TraceHeaders } from "./propagation.ts";
import { type DropReason, dropReasons, type Tracing } from "./tracing.ts";

/**
 * What happens, told once: each function writes metric, span and log line from the same arguments, so that they cannot disagree.
 * Here is the process and its requests; database-signals.ts has what they send to Postgres, worker-, reclaim-, batch-, bulk- and event-signals.ts have the queues.
 * No file outside of telemetry names a metric, a span, an attribute or a log event.
 */

export type Sinks = { readonly log: Log; readonly metrics: Metrics; readonly tracing: Tracing };

export type Build = { readonly version: string; readonly revision: string };

/** Tells what a process starts with; warn, so that no level hides it. */
export async function started(sinks: Sinks, config: Config, build: Build): Promise<void> {
  const { log, metrics } = sinks;
  metrics.set("wordloom_build_info", { version: build.version, revision: build.revision, bun_version: Bun.version }, 1);
  log.warn(
    { event: "observability.schema", version: build.version },
    `Observability schema: ${obsSchema} (file=${Bun.main})`,
  );
  await tracingStarted(sinks, config);
}

/** Tells where the spans of one service go. */
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

/** Returns what counts dropped spans; each reason starts at 0, so that increase() sees the first drop. */
export function spansDropped(metrics: Metrics): (reason: DropReason, count: number) => void {
  for (const reason of dropReasons) metrics.add("wordloom_spans_dropped_total", { reason }, 0);
  return (reason, count) => metrics.add("wordloom_spans_dropped_total", { reason }, count);
}

/** How many events of each kind a committed write appended to each queue. */
export type Appended = ReadonlyMap<
  string,
  { readonly eventType: string; readonly entityType: string; readonly count: number; readonly chronicled: number }
>;

export type RequestSignals = {
  /** X-Request-Id or ?cid= where safe, else made here. */
  readonly correlationId: string;
  /** What the request's writes hand on to the queues. */
  readonly trace: TraceHeaders;
  /** Runs inside the server span. */
  readonly run: <T>(work: () => T) => T;
  /** What was sent does not fit the schema. `faults` say where and what would be right, never what was sent. */
  readonly refused: (
    route: string | null,
    status: number,
    faults: readonly { readonly in: string; readonly pointer: string; readonly detail: string }[],
  ) => void;
  /**
   * Once, when the answer is known, with the length of its body. `route` is the template, null when nothing matched: the raw path is never a name. `problem` is its code, if the
   * answer is one.
   */
  readonly end: (route: string | null, status: number, bytes: number, problem?: string) => void;
};

export type ApiSignals = {
  readonly request: (request: Request) => RequestSignals;
  /** Runs one search in the index, as a client span below the request's. Throws what `search` throws. */
  readonly searched: <T>(index: string, search: () => Promise<T>) => Promise<T>;
  /** Shows how many requests wait to be written together with others; `read` is asked at each scrape. */
  readonly waitingAhead: (verb: string, read: () => number) => void;
  /** After the commit. */
  readonly appended: (appended: Appended) => void;
  /** Something unforeseen went wrong in a request. */
  readonly failed: (correlationId: string, error: unknown) => void;
};

const safeId = /^[A-Za-z0-9._:-]{1,128}$/;

/** What a caller gives its request to be found by, where it is safe to repeat. */
function givenIn(url: URL, name: string): string | undefined {
  const value = url.searchParams.get(name);
  return value !== null && safeId.test(value) ? value : undefined;
}

function correlationOf(request: Request, cid: string | undefined): string {
  const header = request.headers.get("x-request-id");
  return header !== null && safeId.test(header) ? header : (cid ?? crypto.randomUUID());
}

/** Those of OpenTelemetry; any other would be a name that callers choose. */
const methods = new Set(["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"]);

/** `known` are the kinds of events that a write may append, each with the type of its entity. */
export function apiSignals(
  { log, metrics, tracing }: Sinks,
  known: { readonly eventTypes: Readonly<Record<string, string>> },
): ApiSignals {
  const produced = (eventType: string, entityType: string, count: number, chronicled: number) => {
    const labels = { event_type: eventType.replace("_soft_", "_").replace("_", "."), entity_type: entityType };
    metrics.add("outbox_produced_total", { projection: projections.search, ...labels }, count);
    metrics.add("outbox_produced_total", { projection: projections.chronicle, ...labels }, chronicled);
  };
  // Each exists from the start, so that increase() sees the first event.
  for (const [eventType, entityType] of Object.entries(known.eventTypes)) produced(eventType, entityType, 0, 0);
  return {
    request: (request) => {
      const startedAt = performance.now();
      const url = new URL(request.url);
      const cid = givenIn(url, "cid");
      const correlationId = correlationOf(request, cid);
      const method = methods.has(request.method) ? request.method : "_OTHER";
      const incoming = canonicalHeaders(request.headers);
      const span = tracing.enabled
        ? tracing.tracer.startSpan(
            spanName(method, null),
            {
              kind: SpanKind.SERVER,
              attributes: {
                "http.request.method": method,
                ...(method === "_OTHER" ? { "http.request.method_original": request.method } : {}),
                // Not url.query: it is what somebody searches for.
                "url.path": url.pathname,
                "url.scheme": url.protocol.slice(0, -1),
                "server.address": url.hostname,
                "server.port": Number(url.port) || (url.protocol === "https:" ? 443 : 80),
                correlation_id: correlationId,
                "wordloom.correlation_id": correlationId,
                "wordloom.obs_schema": obsSchema,
              },
            },
            contextOf(incoming),
          )
        : undefined;
      log.debug(
        {
          event: "http.request_received",
          correlation_id: correlationId,
          method,
          path: url.pathname,
          cid,
          cache_bust: givenIn(url, "cache_bust"),
          ...traceKeys(span),
        },
        `${method} ${url.pathname}`,
      );
      return {
        correlationId,
        // With tracing off the caller's trace still goes on in the worker.
        trace: span ? headersOf(span.spanContext(), incoming) : incoming,
        run: (work) => (span ? context.with(trace.setSpan(context.active(), span), work) : work()),
        refused: (route, status, faults) =>
          log.info(
            {
              event: "schema.validation_failed",
              correlation_id: correlationId,
              method,
              path: url.pathname,
              route: route ?? "unmatched",
              status_code: status,
              error_count: faults.length,
              errors: faults,
              ...traceKeys(span),
            },
            `${spanName(method, route)}: ${faults.length} faults in the request`,
          ),
        end: (route, status, bytes, problem) => {
          const seconds = (performance.now() - startedAt) / 1000;
          const labels = { method, route: route ?? "unmatched", status: String(status) };
          const keys = traceKeys(span);
          if (span) {
            span.updateName(spanName(method, route));
            span.setAttributes({
              "http.response.status_code": status,
              ...(route === null ? {} : { "http.route": route }),
            });
            // A fault of the caller's is no error of a server span.
            if (status >= 500) {
              span.setStatus({ code: SpanStatusCode.ERROR });
              span.setAttribute("error.type", problem ?? String(status));
            }
            span.end();
          }
          metrics.observe("http_request_duration_seconds", labels, seconds, sampledTraceId(span));
          const line = {
            event: "http.response",
            correlation_id: correlationId,
            method,
            route: labels.route,
            status_code: status,
            duration_ms: Math.round(seconds * 1e6) / 1000,
            response_bytes: bytes,
            ...keys,
          };
          const message = `${spanName(method, route)} ${status}`;
          if (status >= 500) log.error(line, message);
          else log.info(line, message);
        },
      };
    },
    searched: async (index, search) => {
      if (trace.getActiveSpan()?.isRecording() !== true) return await search();
      const span = tracing.tracer.startSpan(`search ${index}`, {
        kind: SpanKind.CLIENT,
        attributes: {
          "db.system.name": "elasticsearch",
          "db.operation.name": "search",
          "db.collection.name": index,
          "wordloom.obs_schema": obsSchema,
        },
      });
      try {
        return await search();
      } catch (error) {
        span.setStatus({ code: SpanStatusCode.ERROR });
        span.setAttribute("error.type", errorType(error));
        throw error;
      } finally {
        span.end();
      }
    },
    waitingAhead: (verb, read) => metrics.read("db_client_connection_pending_requests", { pool: verb }, read),
    appended: (appended) => {
      for (const { eventType, entityType, count, chronicled } of appended.values())
        produced(eventType, entityType, count, chronicled);
    },
    failed: (correlationId, error) =>
      log.error({ event: "http.unexpected_error", correlation_id: correlationId, exc_info: error }),
  };
}

/** OpenTelemetry's name of a server span: of low cardinality, whatever was asked. */
function spanName(method: string, route: string | null): string {
  const verb = method === "_OTHER" ? "HTTP" : method;
  return route === null ? verb : `${verb} ${route}`;
}

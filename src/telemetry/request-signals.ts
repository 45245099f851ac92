import { context, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { type Appended, type EventType, eventTypes, projections, type TraceContext } from "../events.ts";
import { obsSchema } from "./keys.ts";
import { errorType, sampledTraceId, traceKeys } from "./log.ts";
import { canonicalHeaders, contextOf, headersOf } from "./propagation.ts";
import type { Sinks } from "./signals.ts";
import { sparingly } from "./sparingly.ts";

export type RequestSignals = {
  /** X-Request-Id or ?cid= where safe, else made here. */
  readonly correlationId: string;
  /** What the request's writes hand on to the queues. */
  readonly trace: TraceContext;
  /** Runs inside the server span. */
  readonly run: <T>(work: () => T) => T;
  /** The request does not match the schema. `faults` say where and what was expected, never what was sent. */
  readonly refused: (
    route: string | null,
    status: number,
    faults: readonly { readonly in: string; readonly pointer: string; readonly detail: string }[],
  ) => void;
  /**
   * Once, when the answer is known, with the length of its body. `route` is the template, null when nothing matched: the raw path is never a name. `problem` is its code, if the
   * answer is one, with the code of what it comes from (ECONNREFUSED, an SQLSTATE).
   */
  readonly end: (
    route: string | null,
    status: number,
    bytes: number,
    problem?: { readonly code: string; readonly cause: string | undefined },
  ) => void;
};

export type ApiSignals = {
  readonly request: (request: Request) => RequestSignals;
  /** Runs one search in the index, as a client span below the request's. Throws what `search` throws. */
  readonly searched: <T>(index: string, search: () => Promise<T>) => Promise<T>;
  /** A search found this many documents of versions that Postgres has never had. Logged once a minute at most. */
  readonly indexAhead: (count: number) => void;
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

export function apiSignals({ log, metrics, tracing }: Sinks): ApiSignals {
  const produced = (eventType: EventType, count: number, chronicled: number) => {
    const labels = {
      event_type: eventType.replace("_soft_", "_").replace("_", "."),
      entity_type: eventTypes[eventType],
    };
    metrics.add("outbox_produced_total", { projection: projections.search, ...labels }, count);
    metrics.add("outbox_produced_total", { projection: projections.chronicle, ...labels }, chronicled);
  };
  const mayTell = sparingly();
  // Each exists from the start, so that increase() sees the first event.
  for (const eventType of Object.keys(eventTypes) as EventType[]) produced(eventType, 0, 0);
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
              span.setAttribute("error.type", problem?.code ?? String(status));
            }
            span.end();
          }
          metrics.observe("http_request_duration_seconds", labels, seconds, sampledTraceId(span?.spanContext()));
          const line = {
            event: "http.response",
            correlation_id: correlationId,
            method,
            route: labels.route,
            status_code: status,
            duration_ms: Math.round(seconds * 1e6) / 1000,
            response_bytes: bytes,
            reason: problem?.code,
            error: status >= 500 ? problem?.cause : undefined,
            ...keys,
          };
          const message = `${spanName(method, route)} ${status}${problem ? ` ${problem.code}` : ""}`;
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
    indexAhead: (count) => {
      if (mayTell(60_000))
        log.warn(
          { event: "search.index_ahead", count },
          "the search index holds versions that Postgres has never had, which are not served: after a restore, run `wordloom rebuild`",
        );
    },
    waitingAhead: (verb, read) => metrics.read("db_client_connection_pending_requests", { pool: verb }, read),
    appended: (appended) => {
      for (const [eventType, { count, chronicled }] of appended) produced(eventType, count, chronicled);
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

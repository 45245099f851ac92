import { SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { obsSchema } from "./keys.ts";
import { errorType, sqlStateOf } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import { summarizeQuery } from "./query-summary.ts";
import type { Tracing } from "./tracing.ts";

/** Where statements are sent. A unix socket is used where there is one. */
type DatabasePlace = {
  readonly host: string;
  readonly port: number;
  readonly socketPath: string | undefined;
  readonly database: string;
};

/**
 * Returns a listener that is called for each statement when it is sent, and returns one for its end: a client span below the request's. The text has placeholders, never
 * values. Undefined when tracing is off, or when the request is not sampled: then there is nothing to report.
 */
export function statementSignals(
  { enabled, tracer }: Tracing,
  { host, port, socketPath, database }: DatabasePlace,
): ((text: string) => ((error?: unknown) => void) | undefined) | undefined {
  if (!enabled) return undefined;
  const attributes = {
    "db.system.name": "postgresql",
    // The schema is the one that every connection is opened with.
    "db.namespace": `${database}|public`,
    "server.address": socketPath ?? host,
    ...(socketPath === undefined && port !== 5432 ? { "server.port": port } : {}),
    "wordloom.obs_schema": obsSchema,
  };
  return (text) => {
    if (trace.getActiveSpan()?.isRecording() !== true) return undefined;
    const summary = summarizeQuery(text);
    const span = tracer.startSpan(summary, {
      kind: SpanKind.CLIENT,
      attributes: { ...attributes, "db.query.summary": summary, "db.query.text": text },
    });
    return (error) => {
      if (error !== undefined) {
        const sqlState = sqlStateOf(error);
        // Not the message: Postgres puts values into it.
        span.setStatus({ code: SpanStatusCode.ERROR });
        span.setAttributes({
          "error.type": errorType(error),
          ...(sqlState === undefined ? {} : { "db.response.status_code": sqlState }),
        });
      }
      span.end();
    };
  };
}

/** Shows how a pool of connections is used. `pool` is its name, in pg_stat_activity too; `read` is asked at each scrape. */
export function poolOpened(
  metrics: Metrics,
  pool: string,
  read: () => { readonly max: number; readonly used: number; readonly idle: number; readonly pending: number },
): void {
  metrics.read("db_client_connections", { pool, state: "used" }, () => read().used);
  metrics.read("db_client_connections", { pool, state: "idle" }, () => read().idle);
  metrics.read("db_client_connection_pending_requests", { pool }, () => read().pending);
  metrics.set("db_client_connection_max", { pool }, read().max);
}

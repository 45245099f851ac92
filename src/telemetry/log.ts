import { isSpanContextValid, type Span, type SpanContext, TraceFlags, trace } from "@opentelemetry/api";
import pino from "pino";
import pretty from "pino-pretty";
import type { Config } from "../config.ts";
import { codeOf } from "../errors.ts";
import { obsSchema } from "./keys.ts";
import { oneWriteATurn } from "./one-write-a-turn.ts";

export type Log = pino.Logger;

type ErrorLine = { type: string; message: string; code?: string; place?: string; stack?: string; cause?: ErrorLine };

const textOf = (error: object, key: string): string | undefined => {
  const value: unknown = Reflect.get(error, key);
  return typeof value === "string" && value !== "" ? value : undefined;
};

/** The SQLSTATE that Postgres gave an error; undefined where its code is the driver's or the system's, and where it has none. */
export function sqlStateOf(error: unknown): string | undefined {
  const code = codeOf(error);
  return error instanceof Error && /^[0-9A-Z]{5}$/.test(code ?? "") && textOf(error, "severity") !== undefined
    ? code
    : undefined;
}

/** For spans: the error's code, else its class. Never its message, which may quote values. */
export function errorType(error: unknown): string {
  return error instanceof Error ? (codeOf(error) ?? error.name) : "_OTHER";
}

/** The message of an error, unless it is of a kind that quotes what users wrote or secrets. */
function safeMessageOf(error: Error): string {
  const sqlState = sqlStateOf(error);
  if (sqlState !== undefined) return `SQLSTATE ${sqlState}`;
  const query = textOf(error, "query");
  if (query !== undefined) return `failed query: ${query}`;
  // An HTTP client's: its message is the body of the answer.
  if ("statusCode" in error) return `HTTP ${String(error.statusCode)}`;
  return error instanceof SyntaxError || codeOf(error) === "ERR_INVALID_URL" ? "cannot be read" : error.message;
}

/** The lines that say where: after the message, which may have lines that look like them. */
function stackOf(error: Error): string {
  const stack = error.stack ?? "";
  const at = stack.indexOf(error.message);
  return stack
    .slice(at === -1 ? 0 : at + error.message.length)
    .split("\n")
    .filter((line) => /^\s+at /.test(line))
    .join("\n");
}

/**
 * An error for logs and people, without what users wrote: Postgres puts values into its messages, drizzle puts every parameter of the query into its own. Of an error
 * with an SQLSTATE only that and the place are told; of a failed query its text, which has placeholders.
 */
export function describeError(error: unknown): ErrorLine {
  if (!(error instanceof Error)) return { type: typeof error, message: "not an Error" };
  const code = codeOf(error);
  const place = ["table_name", "column_name", "constraint_name", "routine"]
    .flatMap((key) => textOf(error, key) ?? [])
    .join(" ");
  return {
    type: error.name,
    message: safeMessageOf(error),
    ...(code === undefined ? {} : { code }),
    ...(place === "" ? {} : { place }),
    stack: stackOf(error),
    ...(error.cause === undefined ? {} : { cause: describeError(error.cause) }),
  };
}

/**
 * JSON lines on stdout with ts, level, event, message and the shared keys; pretty on a terminal. No transports: they look for worker files on disk, which a
 * compiled binary does not have. Inside an active span a line carries trace_id and span_id.
 */
export function openLog(config: Config, service: string, destination?: pino.DestinationStream): Log {
  const json = config.LOG_JSON ?? !process.stdout.isTTY;
  const target =
    destination ??
    (json
      ? oneWriteATurn(pino.destination({ fd: 1, sync: true }))
      : pretty({ sync: true, messageKey: "message", timestampKey: "ts", ignore: "pid,hostname,obs_schema" }));
  return pino(
    {
      level: config.LOG_LEVEL,
      base: { service, obs_schema: obsSchema },
      messageKey: "message",
      // Not exc_info: pino takes the message of an error at its errorKey as the line's own, before any serializer.
      errorKey: "none",
      serializers: { exc_info: describeError },
      timestamp: timestamps(),
      formatters: { level: (label) => ({ level: label }) },
      mixin: (line) => ("trace_id" in line ? {} : traceKeys(trace.getActiveSpan())),
      // Not pino's own, which copies every line: most have nothing to be merged with.
      mixinMergeStrategy: (line, keys) => ("trace_id" in keys ? { ...keys, ...line } : line),
    },
    target,
  );
}

/** Writes a line's `ts`. A traced batch writes many lines in one millisecond: they share the text. */
function timestamps(): () => string {
  let at = Number.NaN;
  let text = "";
  return () => {
    const now = Date.now();
    if (now !== at) {
      at = now;
      text = `,"ts":"${new Date(now).toISOString()}"`;
    }
    return text;
  };
}

/** trace_id and span_id of a recording span; nothing when tracing is off. */
export function traceKeys(span: Span | undefined): { trace_id?: string; span_id?: string } {
  const context = span?.spanContext();
  return context === undefined || !isSpanContextValid(context)
    ? {}
    : { trace_id: context.traceId, span_id: context.spanId };
}

/** The trace id for an exemplar: only of a trace that somebody can open. */
export function sampledTraceId(span: SpanContext | undefined): string | undefined {
  return span && (span.traceFlags & TraceFlags.SAMPLED) !== 0 ? span.traceId : undefined;
}

import { isSpanContextValid, type Span, trace } from "@opentelemetry/api";
import pino from "pino";
import pretty from "pino-pretty";
import type { Config } from "../config.ts";
import { obsSchema } from "./keys.ts";

export type Log = pino.Logger;

/**
 * JSON lines on stdout with ts, level, event, message and the shared keys; pretty on a terminal. No transports: they look for worker files on disk, which a
 * compiled binary does not have. Inside an active span a line carries trace_id and span_id.
 */
export function openLog(config: Config, service: string, destination?: pino.DestinationStream): Log {
  const json = config.LOG_JSON ?? !process.stdout.isTTY;
  const target =
    destination ??
    (json
      ? pino.destination({ fd: 1, sync: true })
      : pretty({ sync: true, messageKey: "message", timestampKey: "ts", ignore: "pid,hostname,obs_schema" }));
  return pino(
    {
      level: config.LOG_LEVEL,
      base: { service, obs_schema: obsSchema },
      messageKey: "message",
      errorKey: "exc_info",
      timestamp: () => `,"ts":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      mixin: () => traceKeys(trace.getActiveSpan()),
    },
    target,
  );
}

/** trace_id and span_id of a recording span; nothing when tracing is off. */
export function traceKeys(span: Span | undefined): { trace_id?: string; span_id?: string } {
  const context = span?.spanContext();
  return context === undefined || !isSpanContextValid(context)
    ? {}
    : { trace_id: context.traceId, span_id: context.spanId };
}

import {
  type Context,
  context,
  createTraceState,
  isSpanContextValid,
  ROOT_CONTEXT,
  type SpanContext,
  trace,
} from "@opentelemetry/api";
import { parseTraceParent } from "@opentelemetry/core";

/** A W3C trace context as headers and outbox rows carry it. */
export type TraceHeaders = { readonly traceparent: string | null; readonly tracestate: string | null };

const none: TraceHeaders = { traceparent: null, tracestate: null };

/** tracestate travels on only as far as these (W3C Trace Context, 3.3.1). */
const maxTraceState = 512;

function format(span: SpanContext): TraceHeaders {
  const state = span.traceState?.serialize() ?? "";
  return {
    traceparent: `00-${span.traceId}-${span.spanId}-${(span.traceFlags & 1).toString(16).padStart(2, "0")}`,
    tracestate: state === "" || state.length > maxTraceState ? null : state,
  };
}

/** Reads the two headers by the W3C rules; what does not keep them is as if it had not been sent. */
export function parseHeaders(traceparent: string | null, tracestate: string | null): SpanContext | undefined {
  const parsed = traceparent === null ? null : parseTraceParent(traceparent.trim());
  if (parsed === null || !isSpanContextValid(parsed)) return undefined;
  return { ...parsed, isRemote: true, ...(tracestate === null ? {} : { traceState: createTraceState(tracestate) }) };
}

/** The canonical form, the only one that is stored: a header copied verbatim could carry bytes that no request and no row can hold. */
export function canonicalHeaders(headers: Headers): TraceHeaders {
  const span = parseHeaders(headers.get("traceparent"), headers.get("tracestate"));
  return span ? format(span) : none;
}

/** What a span hands on. */
export function headersOf(span: SpanContext): TraceHeaders {
  return isSpanContextValid(span) ? format(span) : none;
}

/** A context whose spans are children of the given headers, or roots where there are none. */
export function contextOf({ traceparent, tracestate }: TraceHeaders): Context {
  const span = parseHeaders(traceparent, tracestate);
  return span ? trace.setSpanContext(ROOT_CONTEXT, span) : ROOT_CONTEXT;
}

/** The active context with this span in it. */
export function contextWith(span: SpanContext | undefined): Context {
  return span ? trace.setSpanContext(context.active(), span) : context.active();
}

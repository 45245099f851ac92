import {
  type Context,
  isSpanContextValid,
  ROOT_CONTEXT,
  type SpanContext,
  TraceFlags,
  type TraceState,
  trace,
} from "@opentelemetry/api";
import { parseTraceParent } from "@opentelemetry/core";
import type { TraceContext } from "../events.ts";

const none: TraceContext = { traceparent: null, tracestate: null };

/** Level 2 adds this flag to `sampled`; the other bits are still unassigned and are sent as 0. */
const randomTraceId = 0b10;
const knownFlags = TraceFlags.SAMPLED | randomTraceId;

function format(span: SpanContext): TraceContext {
  const state = span.traceState?.serialize() ?? "";
  return {
    traceparent: `00-${span.traceId}-${span.spanId}-${(span.traceFlags & knownFlags).toString(16).padStart(2, "0")}`,
    tracestate: state === "" ? null : state,
  };
}

/** Reads the two headers by the W3C rules; what does not keep them is as if it had not been sent. */
export function parseHeaders(traceparent: string | null, tracestate: string | null): SpanContext | undefined {
  const parsed = traceparent === null ? null : parseTraceParent(trimSpace(traceparent));
  if (parsed === null) return undefined;
  const members = tracestate === null ? undefined : parseTraceState(tracestate);
  return { ...parsed, isRemote: true, ...(members === undefined ? {} : { traceState: traceStateOf(members) }) };
}

const trimSpace = (text: string) => (/^[ \t]|[ \t]$/.test(text) ? text.replace(/^[ \t]+|[ \t]+$/g, "") : text);

type Members = ReadonlyMap<string, string>;

/** Key and value of a list member (W3C Trace Context level 2, 3.3.1.3). The SDK's own parser knows level 1 only, and keeps half of a list that is wrong. */
const member = /^([a-z0-9][a-z0-9_\-*/@]{0,255})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])$/;
const maxMembers = 32;

/** Undefined for a list that breaks the rules: it is dropped as a whole. Of a repeated key the first counts: it is the newer one. */
function parseTraceState(text: string): Members | undefined {
  const members = new Map<string, string>();
  const parts = text
    .split(",")
    .map(trimSpace)
    .filter((part) => part !== "");
  if (parts.length > maxMembers) return undefined;
  for (const part of parts) {
    const [, key, value] = member.exec(part) ?? [];
    if (key === undefined || value === undefined) return undefined;
    if (!members.has(key)) members.set(key, value);
  }
  return members;
}

/** At most this many characters are passed on; long members are dropped first, then members from the end (3.3.1.5). */
const maxLength = 512;
const longMember = 128;

function serialize(members: Members): string {
  const all = [...members].map(([key, value]) => `${key}=${value}`);
  if (all.join(",").length <= maxLength) return all.join(",");
  const kept = all.filter((text) => text.length <= longMember);
  while (kept.join(",").length > maxLength) kept.pop();
  return kept.join(",");
}

/** Never changed in place; a member that is set comes to the front. */
function traceStateOf(members: Members): TraceState {
  const without = (key: string) => [...members].filter(([other]) => other !== key);
  return {
    get: (key) => members.get(key),
    set: (key, value) => traceStateOf(new Map([[key, value], ...without(key)])),
    unset: (key) => traceStateOf(new Map(without(key))),
    serialize: () => serialize(members),
  };
}

/** The canonical form, the only one that is stored: a header copied verbatim could carry bytes that no request and no row can hold. */
export function canonicalHeaders(headers: Headers): TraceContext {
  const span = parseHeaders(headers.get("traceparent"), headers.get("tracestate"));
  return span ? format(span) : none;
}

/** What a span hands on. The SDK forgets that its parent's trace id was random; whoever started the trace has said so, and it still holds. */
export function headersOf(span: SpanContext, parent: TraceContext = none): TraceContext {
  if (!isSpanContextValid(span)) return none;
  const flags = parseHeaders(parent.traceparent, null)?.traceFlags ?? 0;
  return format({ ...span, traceFlags: span.traceFlags | (flags & randomTraceId) });
}

/** A context whose spans are children of `parent`, or roots where there is none. */
export function contextBelow(parent: SpanContext | undefined): Context {
  return parent ? trace.setSpanContext(ROOT_CONTEXT, parent) : ROOT_CONTEXT;
}

/** The same for the given headers. */
export const contextOf = ({ traceparent, tracestate }: TraceContext): Context =>
  contextBelow(parseHeaders(traceparent, tracestate));

/**
 * Spans as OTLP/JSON writes them (opentelemetry-proto 1.x, trace.proto): ids in lower-case hex, 64-bit integers as decimal strings, bytes in base64, what is
 * empty left out. Both decoders make this, it is what the store keeps, and v3 of the query API hands it out as it is.
 */

export type AnyValue =
  | { readonly stringValue: string }
  | { readonly boolValue: boolean }
  | { readonly intValue: string }
  | { readonly doubleValue: number | "NaN" | "Infinity" | "-Infinity" }
  | { readonly arrayValue: { readonly values: readonly AnyValue[] } }
  | { readonly kvlistValue: { readonly values: readonly KeyValue[] } }
  | { readonly bytesValue: string };

export type KeyValue = { readonly key: string; readonly value: AnyValue };

export type SpanEvent = {
  readonly timeUnixNano: string;
  readonly name: string;
  readonly attributes?: readonly KeyValue[];
};

export type SpanLink = {
  readonly traceId: string;
  readonly spanId: string;
  readonly traceState?: string;
  readonly attributes?: readonly KeyValue[];
};

export type Span = {
  readonly traceId: string;
  readonly spanId: string;
  readonly traceState?: string;
  readonly parentSpanId?: string;
  readonly flags?: number;
  readonly name: string;
  /** 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer. */
  readonly kind?: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes?: readonly KeyValue[];
  readonly events?: readonly SpanEvent[];
  readonly links?: readonly SpanLink[];
  /** code: 0 unset, 1 ok, 2 error. */
  readonly status?: { readonly code?: number; readonly message?: string };
};

export type Resource = { readonly attributes: readonly KeyValue[] };
export type Scope = { readonly name?: string; readonly version?: string };

export type ResourceSpans = {
  readonly resource: Resource;
  readonly scopeSpans: readonly { readonly scope: Scope; readonly spans: readonly Span[] }[];
};

export const statusError = 2;

/** The payload is not what its content type says. */
export class MalformedPayload extends Error {}

/** What a decoder found, with zeros for what was not sent and without what says nothing. */
export function completeSpan(found: Partial<Span>): Span {
  return {
    ...withoutEmpty(found),
    traceId: found.traceId || "0".repeat(32),
    spanId: found.spanId || "0".repeat(16),
    name: found.name ?? "",
    startTimeUnixNano: found.startTimeUnixNano ?? "0",
    endTimeUnixNano: found.endTimeUnixNano ?? "0",
    ...(found.events && found.events.length > 0 ? { events: found.events.map(completeEvent) } : {}),
    ...(found.links && found.links.length > 0 ? { links: found.links.map(completeLink) } : {}),
    ...(found.status === undefined ? {} : { status: withoutEmpty(found.status) }),
  };
}

function completeEvent(found: Partial<SpanEvent>): SpanEvent {
  return { ...withoutEmpty(found), timeUnixNano: found.timeUnixNano ?? "0", name: found.name ?? "" };
}

function completeLink(found: Partial<SpanLink>): SpanLink {
  const [traceId, spanId] = [found.traceId || "0".repeat(32), found.spanId || "0".repeat(16)];
  return { ...withoutEmpty(found), traceId, spanId };
}

function withoutEmpty<T extends object>(all: T): T {
  const says = (value: unknown) =>
    value !== undefined && value !== "" && value !== 0 && !(Array.isArray(value) && value.length === 0);
  return Object.fromEntries(Object.entries(all).filter(([, value]) => says(value))) as T;
}

/** A double as JSON can carry it. */
export function doubleValue(value: number): AnyValue {
  if (Number.isNaN(value)) return { doubleValue: "NaN" };
  if (Number.isFinite(value)) return { doubleValue: value };
  return { doubleValue: value > 0 ? "Infinity" : "-Infinity" };
}

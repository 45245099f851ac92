import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { Attributes, HrTime, Link, SpanContext } from "@opentelemetry/api";
import type { ReadableSpan, TimedEvent } from "@opentelemetry/sdk-trace-base";

type Scope = ReadableSpan["instrumentationScope"];

/** Of a span. */
const attributesField = 9;

/** Above the low byte of a span's flags: that it is known whether the parent is remote, and that it is. */
const hasIsRemote = 0x100;
const isRemote = 0x200;

/** Whether a number is written as an integer (int64). */
const isInt64 = (n: number) => Number.isInteger(n) && n >= -(2 ** 63) && n < 2 ** 63;

/** Ids are read into these: a new array for each would cost more than writing it. */
const traceId = new Uint8Array(16);
const spanId = new Uint8Array(8);

const begin = (to: BinaryWriter, field: number) => to.tag(field, WireType.LengthDelimited).fork();
const text = (to: BinaryWriter, field: number, value: string) => to.tag(field, WireType.LengthDelimited).string(value);
const integer = (to: BinaryWriter, field: number, value: number) => to.tag(field, WireType.Varint).uint32(value);

function id(to: BinaryWriter, field: number, into: Uint8Array, hex: string): void {
  into.setFromHex(hex);
  to.tag(field, WireType.LengthDelimited).bytes(into);
}

/** Nanoseconds since 1970 take 61 bits, a number holds 53: so the seconds are multiplied by 10⁹ = 1,953,125 · 2⁹ in two steps. Exact until the year 2116. */
function time(to: BinaryWriter, field: number, [seconds, nanos]: HrTime): void {
  const upper = seconds * 1_953_125;
  const low = (upper % 2 ** 23) * 2 ** 9 + nanos;
  to.tag(field, WireType.Bit64)
    .fixed32(low % 2 ** 32)
    .fixed32(Math.floor(upper / 2 ** 23) + Math.floor(low / 2 ** 32));
}

function flags(to: BinaryWriter, field: number, traceFlags: number, remote: boolean | undefined): void {
  to.tag(field, WireType.Bit32).fixed32((traceFlags & 0xff) | hasIsRemote | (remote === true ? isRemote : 0));
}

function anyValue(to: BinaryWriter, field: number, value: unknown): void {
  begin(to, field);
  if (typeof value === "string") text(to, 1, value);
  else if (typeof value === "boolean") to.tag(2, WireType.Varint).bool(value);
  else if (typeof value === "number" && isInt64(value)) to.tag(3, WireType.Varint).int64(BigInt(value));
  else if (typeof value === "number") to.tag(4, WireType.Bit64).double(value);
  else if (Array.isArray(value)) {
    begin(to, 5);
    for (const item of value) anyValue(to, 1, item);
    to.join();
  }
  to.join();
}

function attribute(to: BinaryWriter, field: number, key: string, value: unknown): void {
  begin(to, field);
  text(to, 1, key);
  anyValue(to, 2, value);
  to.join();
}

function attributes(to: BinaryWriter, field: number, all: Attributes | undefined): void {
  for (const key in all) attribute(to, field, key, all[key]);
}

function identity(to: BinaryWriter, context: SpanContext): void {
  id(to, 1, traceId, context.traceId);
  id(to, 2, spanId, context.spanId);
  const state = context.traceState?.serialize() ?? "";
  if (state !== "") text(to, 3, state);
}

function event(to: BinaryWriter, told: TimedEvent): void {
  begin(to, 11);
  time(to, 1, told.time);
  text(to, 2, told.name);
  attributes(to, 3, told.attributes);
  integer(to, 4, told.droppedAttributesCount ?? 0);
  to.join();
}

function link(to: BinaryWriter, { context, attributes: about, droppedAttributesCount }: Link): void {
  begin(to, 13);
  identity(to, context);
  attributes(to, 4, about);
  integer(to, 5, droppedAttributesCount ?? 0);
  flags(to, 6, context.traceFlags, context.isRemote);
  to.join();
}

/**
 * Opens a serializer of spans: an OTLP ExportTraceServiceRequest in protobuf (opentelemetry-proto, trace.proto, whose field numbers these are), byte for byte what the SDK's own
 * makes of them. Ours because a drain pays for it with every event, and the SDK's takes several times as long (docs/adr/0015-own-spans.md): what a span's attributes begin
 * with as those of the span before did is copied, and that is most of them.
 */
export function openSpanSerializer(): (spans: readonly ReadableSpan[]) => Uint8Array {
  const to = new BinaryWriter();
  const alone = new BinaryWriter();
  /** The attributes of the previous span, and the first few of them as bytes. */
  const last: { readonly key: string; readonly value: unknown }[] = [];
  let head = { length: 0, bytes: new Uint8Array() };

  function headOf(length: number): Uint8Array {
    if (head.length !== length) {
      for (const { key, value } of last.slice(0, length)) attribute(alone, attributesField, key, value);
      head = { length, bytes: alone.finish() };
    }
    return head.bytes;
  }

  function spanAttributes(all: Attributes): void {
    let place = 0;
    let alike = true;
    for (const key in all) {
      const value = all[key];
      const before = last[place];
      // A list may have changed in place.
      if (!alike || before?.key !== key || before.value !== value || typeof value === "object") {
        if (alike) to.raw(headOf(place));
        alike = false;
        attribute(to, attributesField, key, value);
        last[place] = { key, value };
      }
      place += 1;
    }
    if (alike) to.raw(headOf(place));
  }

  /** The links of the span before, and as bytes: those of a batch's events share one list. */
  let linked: { links: readonly Link[]; bytes: Uint8Array } = { links: [], bytes: new Uint8Array() };

  function spanLinks(links: readonly Link[]): void {
    if (links.length === 0) return;
    if (links !== linked.links) {
      for (const one of links) link(alone, one);
      linked = { links, bytes: alone.finish() };
    }
    to.raw(linked.bytes);
  }

  function span(told: ReadableSpan): void {
    const context = told.spanContext();
    begin(to, 2);
    identity(to, context);
    if (told.parentSpanContext) id(to, 4, spanId, told.parentSpanContext.spanId);
    text(to, 5, told.name);
    // 0 is "unspecified", which the API does not know.
    integer(to, 6, told.kind + 1);
    time(to, 7, told.startTime);
    time(to, 8, told.endTime);
    spanAttributes(told.attributes);
    integer(to, 10, told.droppedAttributesCount);
    for (const one of told.events) event(to, one);
    integer(to, 12, told.droppedEventsCount);
    spanLinks(told.links);
    integer(to, 14, told.droppedLinksCount);
    begin(to, 15);
    if (told.status.message) text(to, 2, told.status.message);
    integer(to, 3, told.status.code);
    to.join();
    flags(to, 16, context.traceFlags, told.parentSpanContext?.isRemote);
    to.join();
  }

  function scopeSpans({ name, version, schemaUrl }: Scope, spans: readonly ReadableSpan[]): void {
    begin(to, 2);
    begin(to, 1);
    text(to, 1, name);
    if (version) text(to, 2, version);
    to.join();
    for (const one of spans) span(one);
    if (schemaUrl) text(to, 3, schemaUrl);
    to.join();
  }

  function resourceSpans(
    { attributes: about, schemaUrl }: ReadableSpan["resource"],
    spans: readonly ReadableSpan[],
  ): void {
    begin(to, 1);
    begin(to, 1);
    attributes(to, 1, about);
    integer(to, 2, 0);
    to.join();
    for (const [scope, ofScope] of Map.groupBy(spans, (one) => one.instrumentationScope)) scopeSpans(scope, ofScope);
    if (schemaUrl) text(to, 3, schemaUrl);
    to.join();
  }

  return (spans) => {
    for (const [resource, ofResource] of Map.groupBy(spans, (one) => one.resource)) resourceSpans(resource, ofResource);
    return to.finish();
  };
}

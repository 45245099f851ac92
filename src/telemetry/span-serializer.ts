import type { Attributes, HrTime, Link, SpanContext } from "@opentelemetry/api";
import type { ReadableSpan, TimedEvent } from "@opentelemetry/sdk-trace-base";

type Scope = ReadableSpan["instrumentationScope"];

/** How the value of a field is written: protobuf's wire types. */
const wire = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

/** Above the low byte of a span's flags: that it is known whether the parent is remote, and that it is. */
const hasIsRemote = 0x100;
const isRemote = 0x200;

/** A tag, a length and the longest value of fixed length, which is an id of 16 bytes. */
const roomForField = 32;

/** Whether a number is written as an integer (int64). */
const isInt64 = (n: number) => Number.isInteger(n) && n >= -(2 ** 63) && n < 2 ** 63;

/**
 * Opens a serializer of spans: an OTLP ExportTraceServiceRequest in protobuf (opentelemetry-proto, trace.proto, whose field numbers these are), byte for byte what the SDK's own
 * makes of them. Ours because a drain pays for it with every event, and the SDK's takes five times as long (docs/adr/0015-own-span-serializer.md): an attribute that is as it was
 * at the same place of the span before is copied from there, and most are. `bytes` is what it has room for before it makes more.
 */
export function openSpanSerializer(bytes = 256 * 1024): (spans: readonly ReadableSpan[]) => Uint8Array {
  let buffer = Buffer.allocUnsafe(bytes);
  let at = 0;
  /** Of the attribute that was written last at each place of a span: where it lies now. */
  const keys: string[] = [];
  const values: unknown[] = [];
  const starts: number[] = [];
  const ends: number[] = [];

  function reserve(more: number): void {
    if (at + more <= buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(2 * buffer.length, at + more));
    buffer.copy(larger, 0, 0, at);
    buffer = larger;
  }

  function byte(value: number): void {
    buffer[at] = value;
    at += 1;
  }

  /** A negative number takes ten bytes, as one of 64 bits without a sign. */
  function varint(value: number): void {
    if (value >= 0 && value <= 0xffffffff) {
      let rest = value;
      for (; rest > 0x7f; rest = Math.floor(rest / 0x80)) byte((rest & 0x7f) | 0x80);
      byte(rest);
    } else {
      let rest = BigInt.asUintN(64, BigInt(value));
      for (; rest > 0x7fn; rest >>= 7n) byte(Number(rest & 0x7fn) | 0x80);
      byte(Number(rest));
    }
  }

  /** Every field begins with one: room for the rest of it is made here, but for texts and messages. */
  function tag(field: number, type: number): void {
    reserve(roomForField);
    varint((field << 3) | type);
  }

  /** Begins a message whose length will probably take `width` bytes; it is written before it at its end. Returns where the message begins. */
  function open(field: number, width = 1): number {
    tag(field, wire.bytes);
    at += width;
    return at;
  }

  /** Ends the message that begins at `start`. Returns whether it was moved, because its length takes more bytes than expected, or less. */
  function close(start: number, width = 1): boolean {
    const length = at - start;
    const needed = length < 2 ** 7 ? 1 : length < 2 ** 14 ? 2 : length < 2 ** 21 ? 3 : 4;
    reserve(needed);
    if (needed !== width) buffer.copyWithin(start - width + needed, start, at);
    at = start - width;
    varint(length);
    at += length;
    return needed !== width;
  }

  function text(field: number, value: string): void {
    const start = open(field);
    reserve(3 * value.length);
    at += buffer.write(value, at);
    close(start);
  }

  /** An id: bytes, from their hex digits. */
  function id(field: number, hex: string): void {
    tag(field, wire.bytes);
    byte(hex.length / 2);
    at += buffer.write(hex, at, "hex");
  }

  function integer(field: number, value: number): void {
    tag(field, wire.varint);
    varint(value);
  }

  /** Nanoseconds since 1970 take 61 bits, a number holds 53: so the seconds are multiplied by 10⁹ = 1,953,125 · 2⁹ in two steps. Exact until the year 2116. */
  function time(field: number, [seconds, nanos]: HrTime): void {
    tag(field, wire.fixed64);
    const upper = seconds * 1_953_125;
    const low = (upper % 2 ** 23) * 2 ** 9 + nanos;
    at = buffer.writeUInt32LE(low % 2 ** 32, at);
    at = buffer.writeUInt32LE(Math.floor(upper / 2 ** 23) + Math.floor(low / 2 ** 32), at);
  }

  function flags(field: number, traceFlags: number, remote: boolean | undefined): void {
    tag(field, wire.fixed32);
    at = buffer.writeUInt32LE((traceFlags & 0xff) | hasIsRemote | (remote === true ? isRemote : 0), at);
  }

  function anyValue(field: number, value: unknown): void {
    const start = open(field);
    if (typeof value === "string") text(1, value);
    else if (typeof value === "boolean") integer(2, value ? 1 : 0);
    else if (typeof value === "number" && isInt64(value)) integer(3, value);
    else if (typeof value === "number") {
      tag(4, wire.fixed64);
      at = buffer.writeDoubleLE(value, at);
    } else if (Array.isArray(value)) {
      const list = open(5);
      for (const item of value) anyValue(1, item);
      close(list);
    }
    close(start);
  }

  function attribute(field: number, key: string, value: unknown): void {
    const start = open(field);
    text(1, key);
    anyValue(2, value);
    close(start);
  }

  function attributes(field: number, all: Attributes | undefined): void {
    for (const key in all) attribute(field, key, all[key]);
  }

  function copy(start: number, end: number): void {
    if (start === end) return;
    reserve(end - start);
    buffer.copyWithin(at, start, end);
    at += end - start;
  }

  /** As `attributes`, but what is there already is copied: in one piece what lies together. */
  function spanAttributes(field: number, all: Attributes): void {
    let place = 0;
    let start = 0;
    let end = 0;
    for (const key in all) {
      const value = all[key];
      // A list may be another by now.
      if (keys[place] === key && values[place] === value && typeof value !== "object") {
        if (starts[place] !== end) {
          copy(start, end);
          start = starts[place] ?? 0;
        }
        end = ends[place] ?? 0;
      } else {
        copy(start, end);
        start = 0;
        end = 0;
        keys[place] = key;
        values[place] = value;
        starts[place] = at;
        attribute(field, key, value);
        ends[place] = at;
      }
      place += 1;
    }
    copy(start, end);
  }

  /** To be called when what was written lies elsewhere, or is no more. */
  function forgetAttributes(): void {
    keys.length = 0;
  }

  function identity({ traceId, spanId, traceState }: SpanContext): void {
    id(1, traceId);
    id(2, spanId);
    const state = traceState?.serialize() ?? "";
    if (state !== "") text(3, state);
  }

  function event(told: TimedEvent): void {
    const start = open(11);
    time(1, told.time);
    text(2, told.name);
    attributes(3, told.attributes);
    integer(4, told.droppedAttributesCount ?? 0);
    close(start);
  }

  function link(to: Link): void {
    const start = open(13);
    identity(to.context);
    attributes(4, to.attributes);
    integer(5, to.droppedAttributesCount ?? 0);
    flags(6, to.context.traceFlags, to.context.isRemote);
    close(start);
  }

  function span(told: ReadableSpan): void {
    const context = told.spanContext();
    const start = open(2, 2);
    identity(context);
    if (told.parentSpanContext) id(4, told.parentSpanContext.spanId);
    text(5, told.name);
    // 0 is "unspecified", which the API does not know.
    integer(6, told.kind + 1);
    time(7, told.startTime);
    time(8, told.endTime);
    spanAttributes(9, told.attributes);
    integer(10, told.droppedAttributesCount);
    for (const one of told.events) event(one);
    integer(12, told.droppedEventsCount);
    for (const one of told.links) link(one);
    integer(14, told.droppedLinksCount);
    const status = open(15);
    if (told.status.message) text(2, told.status.message);
    integer(3, told.status.code);
    close(status);
    flags(16, context.traceFlags, told.parentSpanContext?.isRemote);
    if (close(start, 2)) forgetAttributes();
  }

  function scopeSpans({ name, version, schemaUrl }: Scope, spans: readonly ReadableSpan[]): void {
    const start = open(2);
    const scope = open(1);
    text(1, name);
    if (version) text(2, version);
    close(scope);
    for (const one of spans) span(one);
    if (schemaUrl) text(3, schemaUrl);
    close(start);
    forgetAttributes();
  }

  function resourceSpans(
    { attributes: about, schemaUrl }: ReadableSpan["resource"],
    spans: readonly ReadableSpan[],
  ): void {
    const start = open(1);
    const resource = open(1);
    attributes(1, about);
    integer(2, 0);
    close(resource);
    for (const [scope, ofScope] of Map.groupBy(spans, (one) => one.instrumentationScope)) scopeSpans(scope, ofScope);
    if (schemaUrl) text(3, schemaUrl);
    close(start);
  }

  return (spans) => {
    at = 0;
    for (const [resource, ofResource] of Map.groupBy(spans, (one) => one.resource)) resourceSpans(resource, ofResource);
    return new Uint8Array(buffer.subarray(0, at));
  };
}

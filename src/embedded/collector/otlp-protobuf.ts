import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import {
  type AnyValue,
  completeSpan,
  doubleValue,
  type KeyValue,
  MalformedPayload,
  type ResourceSpans,
  type Scope,
  type Span,
} from "./otlp.ts";

/** Attributes may hold lists of lists; deeper than this nobody means it, and the stack is not endless. */
const maxDepth = 64;

/** Reads an ExportTraceServiceRequest. Throws MalformedPayload. */
export function decodeProtobuf(bytes: Uint8Array): readonly ResourceSpans[] {
  try {
    const found = readFields(new BinaryReader(bytes), bytes.length, request, 0);
    return found["resourceSpans"] as ResourceSpans[];
  } catch (cause) {
    // Whatever the reader finds: a varint, a string or a message that goes past the end, a field of another type.
    throw new MalformedPayload("unexpected EOF", { cause });
  }
}

/** A google.rpc.Status, the body of an error reply. */
export function encodeStatus(code: number, message: string): Uint8Array<ArrayBuffer> {
  const writer = new BinaryWriter().tag(1, WireType.Varint).int32(code);
  return writer.tag(2, WireType.LengthDelimited).string(message).finish();
}

/** An ExportTraceServiceResponse with an empty partial_success: everything was taken. */
export const acceptedProtobuf = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(new Uint8Array()).finish();

/** How a value is read. `depth` counts the messages around it. */
type Type<T> = { readonly wire: WireType; readonly read: (reader: BinaryReader, depth: number) => T };
type Field = Type<unknown> & { readonly name: string; readonly many: boolean };
type Fields = Readonly<Record<number, Field>>;

const one = (name: string, type: Type<unknown>): Field => ({ ...type, name, many: false });
const many = (name: string, type: Type<unknown>): Field => ({ ...type, name, many: true });

/** Fields that are not in the table are skipped, as protobuf requires; a list is present even when empty. */
function readFields(reader: BinaryReader, end: number, fields: Fields, depth: number): Record<string, unknown> {
  if (end > reader.len || depth > maxDepth) throw new RangeError("a message goes past the end, or too deep");
  const found: Record<string, unknown> = {};
  for (const { name, many: repeated } of Object.values(fields)) if (repeated) found[name] = [];
  while (reader.pos < end) {
    const [number, wire] = reader.tag();
    const field = fields[number];
    if (field === undefined) reader.skip(wire, number);
    else if (field.wire !== wire) throw new RangeError(`field ${number} has wire type ${wire}`);
    else if (field.many) (found[field.name] as unknown[]).push(field.read(reader, depth));
    else found[field.name] = field.read(reader, depth);
  }
  if (reader.pos !== end) throw new RangeError("a message runs past its end");
  return found;
}

function message<Found, T = Found>(
  fields: Fields,
  complete: (found: Found) => T = (found) => found as unknown as T,
): Type<T> {
  return {
    wire: WireType.LengthDelimited,
    read: (reader, depth) => {
      const length = reader.uint32();
      return complete(readFields(reader, reader.pos + length, fields, depth + 1) as Found);
    },
  };
}

const text: Type<string> = { wire: WireType.LengthDelimited, read: (reader) => reader.string() };
const varint: Type<number> = { wire: WireType.Varint, read: (reader) => reader.uint32() };
const bits32: Type<number> = { wire: WireType.Bit32, read: (reader) => reader.fixed32() };
const nanoseconds: Type<string> = { wire: WireType.Bit64, read: (reader) => reader.fixed64().toString() };
const id = (bytes: number): Type<string> => ({
  wire: WireType.LengthDelimited,
  read: (reader) => {
    const value = reader.bytes();
    if (value.length !== bytes && value.length !== 0) throw new RangeError("an id has the wrong length");
    return value.toHex();
  },
});
/** One branch of AnyValue's `oneof`: all branches share a name, so that the last one sent stands. */
const branch = <T>({ wire, read }: Type<T>, wrap: (value: T) => AnyValue): Field =>
  one("value", { wire, read: (reader, depth) => wrap(read(reader, depth)) });

const nothing: AnyValue = { stringValue: "" };
// Filled below: a value may hold values.
const branches: Record<number, Field> = {};
const anyValue = message(branches, ({ value = nothing }: { value?: AnyValue }) => value);
const keyValue = message(
  { 1: one("key", text), 2: one("value", anyValue) },
  ({ key = "", value = nothing }: { key?: string; value?: AnyValue }): KeyValue => ({ key, value }),
);
Object.assign(branches, {
  1: branch(text, (stringValue) => ({ stringValue })),
  2: branch({ wire: WireType.Varint, read: (reader) => reader.bool() }, (boolValue) => ({ boolValue })),
  3: branch({ wire: WireType.Varint, read: (reader) => reader.int64() }, (int) => ({ intValue: int.toString() })),
  4: branch({ wire: WireType.Bit64, read: (reader) => reader.double() }, doubleValue),
  5: branch(message<{ values: AnyValue[] }>({ 1: many("values", anyValue) }), (arrayValue) => ({ arrayValue })),
  6: branch(message<{ values: KeyValue[] }>({ 1: many("values", keyValue) }), (kvlistValue) => ({ kvlistValue })),
  7: branch({ wire: WireType.LengthDelimited, read: (reader) => reader.bytes().toBase64() }, (bytesValue) => ({
    bytesValue,
  })),
});

// The field numbers are those of opentelemetry-proto 1.x; a published number never changes its meaning.
const event = message({ 1: one("timeUnixNano", nanoseconds), 2: one("name", text), 3: many("attributes", keyValue) });
const link = message({
  1: one("traceId", id(16)),
  2: one("spanId", id(8)),
  3: one("traceState", text),
  4: many("attributes", keyValue),
});
const span = message(
  {
    1: one("traceId", id(16)),
    2: one("spanId", id(8)),
    3: one("traceState", text),
    4: one("parentSpanId", id(8)),
    5: one("name", text),
    6: one("kind", varint),
    7: one("startTimeUnixNano", nanoseconds),
    8: one("endTimeUnixNano", nanoseconds),
    9: many("attributes", keyValue),
    11: many("events", event),
    13: many("links", link),
    15: one("status", message({ 2: one("message", text), 3: one("code", varint) })),
    16: one("flags", bits32),
  },
  completeSpan,
);
const scopeSpans = message(
  { 1: one("scope", message({ 1: one("name", text), 2: one("version", text) })), 2: many("spans", span) },
  ({ scope = {}, spans }: { scope?: Scope; spans: Span[] }) => ({ scope, spans }),
);
const resourceSpans = message(
  { 1: one("resource", message({ 1: many("attributes", keyValue) })), 2: many("scopeSpans", scopeSpans) },
  (found: Partial<ResourceSpans>): ResourceSpans => ({
    resource: found.resource ?? { attributes: [] },
    scopeSpans: found.scopeSpans ?? [],
  }),
);
const request: Fields = { 1: many("resourceSpans", resourceSpans) };

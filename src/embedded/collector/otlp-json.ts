import {
  type AnyValue,
  completeSpan,
  doubleValue,
  type KeyValue,
  MalformedPayload,
  type ResourceSpans,
  type Scope,
  type Span,
  type SpanEvent,
  type SpanLink,
} from "./otlp.ts";

type Fields = Readonly<Record<string, unknown>>;

const kinds = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"].map(
  (name) => `SPAN_KIND_${name}`,
);
const statusCodes = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

/**
 * Reads an ExportTraceServiceRequest in OTLP/JSON: protobuf's JSON mapping with ids in hex. Unknown fields are passed over. Numbers beyond 2^53 are exact as
 * strings only, which is how the mapping writes them. Throws MalformedPayload.
 */
export function decodeJson(text: string): readonly ResourceSpans[] {
  try {
    return list(fields(JSON.parse(text), "the payload")["resourceSpans"], "resourceSpans").map(resourceSpans);
  } catch (cause) {
    // No JSON, or values nested so deeply that the stack ends.
    if (cause instanceof SyntaxError || cause instanceof RangeError)
      throw new MalformedPayload(cause.message, { cause });
    throw cause;
  }
}

function resourceSpans(found: Fields): ResourceSpans {
  return {
    resource: { attributes: attributes(fields(found["resource"] ?? {}, "resource")["attributes"]) },
    scopeSpans: list(found["scopeSpans"], "scopeSpans").map((scopeSpans) => ({
      scope: scope(fields(scopeSpans["scope"] ?? {}, "scope")),
      spans: list(scopeSpans["spans"], "spans").map(span),
    })),
  };
}

function scope(found: Fields): Scope {
  const [name, version] = [text(found["name"], "scope.name"), text(found["version"], "scope.version")];
  return { ...(name === "" ? {} : { name }), ...(version === "" ? {} : { version }) };
}

function span(found: Fields): Span {
  const status = fields(found["status"] ?? {}, "status");
  return completeSpan({
    traceId: id(found["traceId"], 32, "traceId"),
    spanId: id(found["spanId"], 16, "spanId"),
    parentSpanId: id(found["parentSpanId"], 16, "parentSpanId"),
    traceState: text(found["traceState"], "traceState"),
    flags: Number(integer(found["flags"], "flags")),
    name: text(found["name"], "name"),
    kind: enumerated(found["kind"], kinds, "kind"),
    startTimeUnixNano: nanoseconds(found["startTimeUnixNano"], "startTimeUnixNano"),
    endTimeUnixNano: nanoseconds(found["endTimeUnixNano"], "endTimeUnixNano"),
    attributes: attributes(found["attributes"]),
    events: list(found["events"], "events").map(event),
    links: list(found["links"], "links").map(link),
    status: {
      code: enumerated(status["code"], statusCodes, "status.code"),
      message: text(status["message"], "status.message"),
    },
  });
}

function event(found: Fields): SpanEvent {
  return {
    timeUnixNano: nanoseconds(found["timeUnixNano"], "timeUnixNano"),
    name: text(found["name"], "event.name"),
    attributes: attributes(found["attributes"]),
  };
}

function link(found: Fields): SpanLink {
  return {
    traceId: id(found["traceId"], 32, "link.traceId"),
    spanId: id(found["spanId"], 16, "link.spanId"),
    traceState: text(found["traceState"], "link.traceState"),
    attributes: attributes(found["attributes"]),
  };
}

function attributes(value: unknown): KeyValue[] {
  return list(value, "attributes").map((pair) => ({
    key: text(pair["key"], "key"),
    value: anyValue(fields(pair["value"] ?? {}, "value")),
  }));
}

function anyValue(found: Fields): AnyValue {
  for (const [name, value] of Object.entries(found)) {
    if (Object.hasOwn(branches, name) && value !== null) return branches[name]?.(value) ?? nothing;
  }
  return nothing;
}

const nothing: AnyValue = { stringValue: "" };
const branches: Readonly<Record<string, (value: unknown) => AnyValue>> = {
  stringValue: (value) => ({ stringValue: text(value, "stringValue") }),
  boolValue: (value) => {
    if (typeof value !== "boolean") throw unexpected("boolValue", "a boolean");
    return { boolValue: value };
  },
  intValue: (value) => ({ intValue: integer(value, "intValue").toString() }),
  doubleValue: (value) => {
    const number = typeof value === "string" ? Number(value.trim() || "x") : value;
    if (typeof number !== "number" || (Number.isNaN(number) && value !== "NaN"))
      throw unexpected("doubleValue", "a number");
    return doubleValue(number);
  },
  arrayValue: (value) => ({
    arrayValue: { values: list(fields(value, "arrayValue")["values"], "arrayValue.values").map(anyValue) },
  }),
  kvlistValue: (value) => ({ kvlistValue: { values: attributes(fields(value, "kvlistValue")["values"]) } }),
  bytesValue: (value) => {
    try {
      return { bytesValue: Uint8Array.fromBase64(text(value, "bytesValue")).toBase64() };
    } catch (cause) {
      throw new MalformedPayload("bytesValue is not base64", { cause });
    }
  },
};

const unexpected = (name: string, expected: string) => new MalformedPayload(`${name}: expected ${expected}`);

function fields(value: unknown, name: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw unexpected(name, "an object");
  return value as Fields;
}

function list(value: unknown, name: string): Fields[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw unexpected(name, "a list");
  return value.map((item) => fields(item, name));
}

function text(value: unknown, name: string): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") throw unexpected(name, "a string");
  return value;
}

function id(value: unknown, digits: number, name: string): string {
  const given = text(value, name);
  if (given === "") return "";
  if (given.length !== digits || !/^[0-9a-f]+$/i.test(given)) throw unexpected(name, `${digits} hex digits`);
  return given.toLowerCase();
}

function integer(value: unknown, name: string): bigint {
  if (value === undefined || value === null) return 0n;
  if (typeof value === "string" && /^-?\d{1,20}$/.test(value)) return BigInt(value);
  if (typeof value === "number" && Number.isInteger(value)) return BigInt(value);
  throw unexpected(name, "an integer");
}

function nanoseconds(value: unknown, name: string): string {
  const count = integer(value, name);
  if (count < 0n || count >= 1n << 64n) throw unexpected(name, "nanoseconds since 1970");
  return count.toString();
}

/** By number or by name; an unknown name counts as 0. */
function enumerated(value: unknown, names: readonly string[], name: string): number {
  return typeof value === "string" && !/^\d+$/.test(value)
    ? Math.max(0, names.indexOf(value))
    : Number(integer(value, name));
}

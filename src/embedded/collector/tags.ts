import { type AnyValue, type KeyValue, type Resource, type Scope, type Span, statusError } from "./otlp.ts";

/** Jaeger's view of a span: everything that is said of it as flat tags, the form in which it is searched and shown. */
export type Tag =
  | { readonly key: string; readonly type: "string" | "binary"; readonly value: string }
  | { readonly key: string; readonly type: "bool"; readonly value: boolean }
  /** `value` is a string where a JavaScript number would not be exact. */
  | { readonly key: string; readonly type: "int64"; readonly value: number | string }
  | { readonly key: string; readonly type: "float64"; readonly value: number };

const kinds = ["", "internal", "server", "client", "producer", "consumer"];

export const kindName = (kind: number | undefined): string => kinds[kind ?? 0] ?? "";

/** The service as Jaeger names it. */
export function serviceName(resource: Resource): string {
  const name = resource.attributes.find(({ key }) => key === "service.name")?.value;
  if (name === undefined) return "missing-service-name";
  return tagText(tagOf({ key: "", value: name })) || "empty-service-name";
}

/** Tags of the span itself, sorted by key. */
export function spanTags(span: Span, scope: Scope): Tag[] {
  const tags = [...(span.attributes ?? [])].map(tagOf);
  const kind = kindName(span.kind);
  if (scope.name) tags.push(string("otel.scope.name", scope.name));
  if (scope.version) tags.push(string("otel.scope.version", scope.version));
  if (kind !== "") tags.push(string("span.kind", kind));
  if (span.status?.code === 1) tags.push(string("otel.status_code", "OK"));
  if (isError(span)) tags.push(string("otel.status_code", "ERROR"), { key: "error", type: "bool", value: true });
  if (span.status?.message) tags.push(string("otel.status_description", span.status.message));
  if (span.traceState) tags.push(string("w3c.tracestate", span.traceState));
  return tags.toSorted(byKey);
}

export const isError = (span: Span): boolean => span.status?.code === statusError;

/** The resource's tags but for the service's name, sorted by key. */
export const resourceTags = (resource: Resource): Tag[] =>
  resource.attributes
    .filter(({ key }) => key !== "service.name")
    .map(tagOf)
    .toSorted(byKey);

/** An event's tags: its name as `event`, then its attributes by key. */
export function eventTags({ name, attributes = [] }: NonNullable<Span["events"]>[number]): Tag[] {
  const tags = attributes.map(tagOf).toSorted(byKey);
  return name === "" || attributes.some(({ key }) => key === "event") ? tags : [string("event", name), ...tags];
}

const byKey = (a: Tag, b: Tag) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
const string = (key: string, value: string): Tag => ({ key, type: "string", value });

function tagOf({ key, value }: KeyValue): Tag {
  if ("boolValue" in value) return { key, type: "bool", value: value.boolValue };
  if ("intValue" in value) {
    const number = Number(value.intValue);
    return { key, type: "int64", value: Number.isSafeInteger(number) ? number : value.intValue };
  }
  if ("doubleValue" in value) return { key, type: "float64", value: Number(value.doubleValue) };
  if ("bytesValue" in value) return { key, type: "binary", value: value.bytesValue };
  return string(key, "stringValue" in value ? value.stringValue : jsonOf(value));
}

function jsonOf(value: AnyValue): string {
  if ("arrayValue" in value) return `[${value.arrayValue.values.map(jsonOf).join(",")}]`;
  if ("kvlistValue" in value) {
    const entries = value.kvlistValue.values.toSorted((a, b) => (a.key < b.key ? -1 : 1));
    return `{${entries.map((entry) => `${JSON.stringify(entry.key)}:${jsonOf(entry.value)}`).join(",")}}`;
  }
  if ("intValue" in value) return value.intValue;
  return JSON.stringify(Object.values(value)[0]);
}

/** A tag's value as searches write it: Jaeger compares text, case-sensitive and whole. */
export function tagText(tag: Tag): string {
  if (tag.type === "binary") return Uint8Array.fromBase64(tag.value).toHex();
  return tag.type === "float64" ? floatText(tag.value) : String(tag.value);
}

/** Go's %.10g, in which Jaeger indexes doubles. */
function floatText(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  const plain = String(value);
  if (plain.length <= 10 && (value === 0 || Math.abs(value) >= 1e-4)) return plain;
  const [digits = "", power = "0"] = value.toExponential(9).split("e");
  const exponent = Number(power);
  if (exponent >= -4 && exponent < 10) return String(Number(value.toPrecision(10)));
  const mantissa = digits.replace(/\.?0+$/, "");
  return `${mantissa}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

import type { Cause } from "./errors.ts";
import { isObject, type Json } from "./json.ts";
import { type FieldType, show } from "./mapping.ts";

/** What a column holds: long and date (epoch milliseconds) are bigints, booleans 0 or 1. */
export type Value = string | number | bigint;

/** Why a value does not fit its field. */
export class BadValue extends Error {
  readonly failure: Cause;

  constructor(failure: Cause) {
    super(failure.reason ?? failure.type);
    this.failure = failure;
  }
}

const longRange = [-(2n ** 63n), 2n ** 63n - 1n] as const;
const integerRange = [-(2n ** 31n), 2n ** 31n - 1n] as const;

/**
 * A JSON value (no array, no null) as the field's own value, by Elasticsearch's rules of coercion: strings of digits are
 * numbers, fractions of integers are cut off, "" is no number and false. Throws BadValue.
 */
export function toValue(type: FieldType, value: Json): Value | undefined {
  if (isObject(value) || Array.isArray(value)) {
    throw new BadValue({ type: "illegal_argument_exception", reason: "Expected text but found START_OBJECT" });
  }
  switch (type) {
    case "keyword":
    case "text":
      return String(value);
    case "boolean":
      return toBoolean(value);
    case "date":
      return toDate(value);
    case "long":
      return toInteger(value, "long", longRange);
    case "integer":
      return toInteger(value, "int", integerRange);
    case "float":
    case "double":
      return toReal(type, value);
    default:
      return type satisfies never;
  }
}

function toBoolean(value: Json): bigint {
  if (value === true || value === "true") return 1n;
  if (value === false || value === "false" || value === "") return 0n;
  if (typeof value !== "string") throw badToken(`Current token (${token(value)}) not of boolean type`);
  throw new BadValue({
    type: "illegal_argument_exception",
    reason: `Failed to parse value [${value}] as only [true] or [false] are allowed.`,
  });
}

function toInteger(value: Json, name: string, [least, most]: readonly [bigint, bigint]): bigint | undefined {
  if (value === "") return undefined;
  const integer = integerOf(value);
  if (integer < least || integer > most) {
    throw badToken(
      `Numeric value (${show(value)}) out of range of ${name} (${least} - ${most})`,
      "input_coercion_exception",
    );
  }
  return integer;
}

function integerOf(value: Json): bigint {
  if (typeof value === "bigint") return value;
  if (typeof value === "number" && Number.isFinite(value)) return BigInt(Math.trunc(value));
  if (typeof value === "string") {
    if (/^[+-]?\d+$/.test(value)) return BigInt(value);
    if (isDecimal(value)) return BigInt(Math.trunc(Number(value)));
    throw badNumber(value);
  }
  throw badToken(`Current token (${token(value)}) not numeric, can not use numeric value accessors`);
}

function toReal(type: "float" | "double", value: Json): number | undefined {
  if (value === "") return undefined;
  if (typeof value === "boolean") {
    throw badToken(`Current token (${token(value)}) not numeric, can not use numeric value accessors`);
  }
  if (typeof value === "string" && !isDecimal(value)) throw badNumber(value);
  const real = type === "float" ? Math.fround(Number(value)) : Number(value);
  if (!Number.isFinite(real)) {
    const reason = `[${type}] supports only finite values, but got [${real}]`;
    throw new BadValue({ type: "illegal_argument_exception", reason });
  }
  return real;
}

/** The format strict_date_optional_time||epoch_millis, as epoch milliseconds. Without a zone it is UTC. */
function toDate(value: Json): bigint {
  if (typeof value === "bigint") return value;
  if (typeof value === "number" && Number.isFinite(value)) return BigInt(Math.trunc(value));
  if (value === "") throw new BadValue({ type: "illegal_argument_exception", reason: "cannot parse empty datetime" });
  const text = show(value);
  if (/^-?\d{5,}$/.test(text)) return BigInt(text);
  const parts =
    /^(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?)?(Z|[+-]\d\d(?::?\d\d)?)?)?)?$/.exec(
      text,
    );
  const millis = parts === null ? Number.NaN : epochMillis(parts);
  if (Number.isNaN(millis)) {
    throw new BadValue({
      type: "illegal_argument_exception",
      reason: `failed to parse date field [${text}] with format [strict_date_optional_time||epoch_millis]`,
      caused_by: { type: "date_time_parse_exception", reason: "Failed to parse with all enclosed parsers" },
    });
  }
  return BigInt(millis);
}

/** A bound of a date range. What the text leaves out is its first moment, or its last when `up`. */
export function dateBound(text: string, up: boolean): bigint {
  const from = toDate(text);
  const [date = "", time = ""] = text
    .replace(/(Z|[+-]\d\d(:?\d\d)?)$/, (zone) => (text.includes("T") ? "" : zone))
    .split("T");
  if (!up || /^-?\d{5,}$/.test(text)) return from;
  const parts = [...date.split("-"), ...time.split(/[:.,]/).filter((part) => part !== "")].length;
  if (parts >= 7) return from;
  const end = new Date(Number(from));
  if (parts === 1) end.setUTCFullYear(end.getUTCFullYear() + 1);
  else if (parts === 2) end.setUTCMonth(end.getUTCMonth() + 1);
  else end.setTime(end.getTime() + ([864e5, 36e5, 6e4, 1e3][parts - 3] ?? 1));
  return BigInt(end.getTime() - 1);
}

function epochMillis([
  ,
  year,
  month = "01",
  day = "01",
  hour = "00",
  minute = "00",
  second = "00",
  fraction = "0",
  zone,
]: (string | undefined)[]): number {
  const local = Date.parse(
    `${year}-${month}-${day}T${hour}:${minute}:${second}.${fraction.slice(0, 3).padEnd(3, "0")}Z`,
  );
  // Date.parse rolls 31 April over to May; the strict format refuses it.
  if (new Date(local).getUTCDate() !== Number(day) || hour === "24") return Number.NaN;
  if (zone === undefined || zone === "Z") return local;
  const [, sign, hours, minutes = "00"] = /^([+-])(\d\d):?(\d\d)?$/.exec(zone) ?? [];
  const offset = (Number(hours) * 60 + Number(minutes)) * 60_000;
  return sign === "-" ? local + offset : local - offset;
}

function isDecimal(text: string): boolean {
  return /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text);
}

const badNumber = (text: string) =>
  new BadValue({ type: "illegal_argument_exception", reason: `For input string: "${text}"` });

const badToken = (reason: string, type = "json_parse_exception") =>
  new BadValue({ type: "x_content_parse_exception", reason: `[1:1] ${reason}`, caused_by: { type, reason } });

function token(value: Json): string {
  if (typeof value === "boolean") return value ? "VALUE_TRUE" : "VALUE_FALSE";
  return typeof value === "string" ? "VALUE_STRING" : "VALUE_NUMBER_INT";
}

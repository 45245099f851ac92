import { illegalArgument, parsingException, queryShardException, shardFailure, unsupported } from "./errors.ts";
import { isObject, type Json, RawJson, type Reply } from "./json.ts";
import { type Field, show } from "./mapping.ts";
import { bind, type Compilation } from "./query/compilation.ts";
import type { Index } from "./store.ts";
import { valueColumn } from "./tables.ts";
import { toValue, type Value } from "./values.ts";

/** One key of a sort: an SQL expression over a row, and how its values are shown and read back. */
export interface SortKey {
  readonly name: string;
  readonly expression: string;
  readonly descending: boolean;
  /** Only keywords can be without a value; numbers have the least or the greatest in its place. */
  readonly nullable: boolean;
  readonly nullsFirst: boolean;
  readonly show: (value: Value | null) => Reply;
  readonly read: (value: Json) => Value | null;
}

/** Reads `sort`. Throws what Elasticsearch answers to a wrong one. */
export function parseSort(sort: Json, index: Index): SortKey[] {
  return (Array.isArray(sort) ? sort : [sort]).flatMap((item) => {
    if (typeof item === "string") return [sortKey(item, {}, index)];
    if (!isObject(item))
      throw illegalArgument("malformed sort format, either start with array, object, or an actual string");
    return Object.entries(item).map(([name, options]) =>
      sortKey(name, isObject(options) ? options : { order: options }, index),
    );
  });
}

/** Where no other key tells two documents apart: the order in which they were written. */
export const byWriting: SortKey = {
  name: "_shard_doc",
  expression: "seq",
  descending: false,
  nullable: false,
  nullsFirst: false,
  show: (value) => value,
  read: (value) => wholeNumber(value, "_shard_doc"),
};

export const byScore: SortKey = {
  name: "_score",
  expression: "score",
  descending: true,
  nullable: false,
  nullsFirst: false,
  show: (value) => showFloat(Number(value)),
  read: Number,
};

function sortKey(name: string, options: { readonly [key: string]: Json }, index: Index): SortKey {
  const { order, missing = "_last", ...rest } = options;
  const [other] = Object.keys(rest);
  if (other !== undefined) {
    if (["mode", "unmapped_type", "numeric_type", "format", "nested"].includes(other))
      throw unsupported(`the sort option [${other}]`);
    throw parsingException(`[field_sort] unknown field [${other}]`);
  }
  if (order !== undefined && order !== "asc" && order !== "desc") {
    throw illegalArgument(`No enum constant org.elasticsearch.search.sort.SortOrder.${show(order).toUpperCase()}`);
  }
  if (name === "_score") return { ...byScore, descending: order !== "asc" };
  const descending = order === "desc";
  if (name === "_doc" || name === "_shard_doc") return { ...byWriting, name, descending };
  if (name === "_id")
    throw forbidden(
      index,
      "Fielddata access on the _id field is disallowed, you can re-enable it by updating the dynamic cluster setting: indices.id_field_data.enabled",
    );
  const field = index.mapping.fields.get(name);
  if (field === undefined) throw queryShardException(index, `No mapping found for [${name}] in order to sort on`);
  if (field.type === "text")
    throw forbidden(
      index,
      `Fielddata is disabled on [${name}] in [${index.name}]. Text fields are not optimised for operations that require per-document field data like aggregations and sorting, so these operations are disabled by default. Please use a keyword field instead. Alternatively, set fielddata=true on [${name}] in order to load field data by uninverting the inverted index. Note that this can use significant memory.`,
    );
  if (missing !== "_last" && missing !== "_first") throw unsupported("a value for what is missing in a sort");
  return fieldKey(field, descending, missing === "_first");
}

function fieldKey(field: Field, descending: boolean, nullsFirst: boolean): SortKey {
  const column = valueColumn(field);
  const pick = descending ? "max" : "min";
  const scalar = `case typeof(${column}) when 'blob' then (select ${pick}(value) from json_each(cast(${column} as text))) else ${column} end`;
  const base = { name: field.name, descending, nullsFirst };
  if (field.type === "keyword") {
    const read = (value: Json) => (value === null ? null : show(value));
    return { ...base, expression: scalar, nullable: true, show: (value) => value, read };
  }
  const greatest = descending === nullsFirst;
  if (field.type === "float" || field.type === "double") {
    const infinity = greatest ? "9e999" : "-9e999";
    const single = field.type === "float";
    return {
      ...base,
      expression: `coalesce(${scalar}, ${infinity})`,
      nullable: false,
      show: (value) => showReal(Number(value), single),
      read: (value) => (single ? Math.fround(Number(value)) : Number(value)),
    };
  }
  const bits = field.type === "integer" ? 31n : 63n;
  const standIn = greatest ? 2n ** bits - 1n : -(2n ** bits);
  return {
    ...base,
    // The least long has no literal in SQL.
    expression: `coalesce(${scalar}, ${standIn === -(2n ** 63n) ? "(-9223372036854775807 - 1)" : standIn})`,
    nullable: false,
    show: (value) => value,
    read: (value) => {
      if (field.type === "date" && typeof value === "string") return toValue("date", value) ?? 0n;
      return wholeNumber(value, field.name);
    },
  };
}

export function orderBy(keys: readonly SortKey[]): string {
  return keys
    .map((key, i) => {
      const direction = key.descending ? "desc" : "asc";
      const nulls = key.nullable ? ` nulls ${key.nullsFirst ? "first" : "last"}` : "";
      return `k${i} ${direction}${nulls}`;
    })
    .join(", ");
}

/** The condition that a row comes after the values of `search_after`. */
export function after(to: Compilation, keys: readonly SortKey[], values: Json, index: Index): string {
  if (!Array.isArray(values)) throw parsingException("Expected [VALUE_STRING] or [START_ARRAY] for [search_after]");
  if (values.length !== keys.length) {
    throw forbidden(index, `search_after has ${values.length} value(s) but sort has ${keys.length}.`);
  }
  const bound = keys.map((key, i) => {
    const value = key.read(values[i] ?? null);
    return { key, column: `k${i}`, value, parameter: value === null ? "null" : bind(to, value) };
  });
  const alternatives = bound.map(({ key, column, value, parameter }, i) => {
    const equal = bound.slice(0, i).map((earlier) => `${earlier.column} is ${earlier.parameter}`);
    const beyond = `${column} ${key.descending ? "<" : ">"} ${parameter}`;
    const later =
      value === null
        ? key.nullsFirst
          ? `${column} is not null`
          : "0"
        : key.nullable && !key.nullsFirst
          ? `(${beyond} or ${column} is null)`
          : beyond;
    return `(${[...equal, later].join(" and ")})`;
  });
  return `(${alternatives.join(" or ")})`;
}

/** A score as the engine holds it: single precision, in its shortest digits. */
export function showFloat(value: number): RawJson {
  const single = Math.fround(value);
  for (let digits = 1; digits < 9; digits++) {
    const text = single.toPrecision(digits);
    if (Math.fround(Number(text)) === single) return decimal(Number(text));
  }
  return decimal(Number(single.toPrecision(9)));
}

function showReal(value: number, single: boolean): Reply {
  if (!Number.isFinite(value)) return value > 0 ? "Infinity" : "-Infinity";
  return single ? showFloat(value) : decimal(value);
}

/** Whole numbers keep their ".0": that is how the engine shows a real number. */
function decimal(value: number): RawJson {
  return new RawJson(Number.isInteger(value) && Math.abs(value) < 1e21 ? `${value}.0` : show(value));
}

function wholeNumber(value: Json, name: string): bigint {
  if (typeof value === "bigint") return toLong(value);
  // The stand-in for a missing long comes back from a client that only has doubles as 2^63, one too many.
  if (typeof value === "number" && Number.isInteger(value)) return toLong(BigInt(value));
  if (typeof value === "string" && /^-?\d+$/.test(value)) return toLong(BigInt(value));
  throw illegalArgument(`Failed to parse search_after value for field [${name}].`);
}

function forbidden(index: Index, reason: string) {
  return shardFailure(index, 400, { type: "illegal_argument_exception", reason });
}

function toLong(value: bigint): bigint {
  const most = 2n ** 63n - 1n;
  return value > most ? most : value < -most - 1n ? -most - 1n : value;
}

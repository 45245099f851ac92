import {
  illegalArgument,
  parsingException,
  queryShardException,
  Refusal,
  shardFailure,
  unsupported,
} from "../errors.ts";
import { isObject, type Json, type JsonObject } from "../json.ts";
import { type Field, show } from "../mapping.ts";
import { valueColumn, wordsColumn } from "../tables.ts";
import { BadValue, dateBound, toValue, type Value } from "../values.ts";
import { keywordScore, words } from "./bm25.ts";
import { onlyField, refuseRest, toBoost } from "./clause.ts";
import { bind, type Compilation, type Compiled, constant, nothing } from "./compilation.ts";

export function term(to: Compilation, body: JsonObject, outer: number, scoring: boolean): Compiled {
  const [name, options] = onlyField("term", body);
  const { value, boost: own, ...rest } = isObject(options) ? options : { value: options };
  refuseRest("term", rest);
  if (value === undefined || value === null) throw illegalArgument("value cannot be null");
  return equals(to, name, value, outer * toBoost(own), scoring);
}

/** Rows whose field holds this value, or for text this very word. */
export function equals(to: Compilation, name: string, value: Json, boost: number, scoring: boolean): Compiled {
  if (name === "_id") return constant(`d.id = ${bind(to, show(value))}`, boost);
  const field = to.snapshot.index.mapping.fields.get(name);
  if (field === undefined) return nothing;
  if (field.type === "text") {
    checkIndexed(to, field);
    return words(to, field, [show(value)], 1, boost);
  }
  const wanted = queryValue(to, field, value);
  if (wanted === undefined) return nothing;
  const match = holds(field, bind(to, wanted));
  return scoring && field.type === "keyword"
    ? { match, score: keywordScore(to, field, match, boost) }
    : constant(match, boost);
}

export function terms(to: Compilation, body: JsonObject, outer: number): Compiled {
  const { boost: own, ...fields } = body;
  const [name, values] = onlyField("terms", fields);
  if (!Array.isArray(values)) throw parsingException(`[terms] query does not support [${name}]`);
  const matches = values.map((value) => equals(to, name, value, 1, false).match);
  return constant(`(${matches.join(" or ") || "0"})`, outer * toBoost(own));
}

export function ids(to: Compilation, body: JsonObject, outer: number): Compiled {
  const { values, boost: own, ...rest } = body;
  const [other] = Object.keys(rest);
  if (other !== undefined) throw new Refusal(400, "x_content_parse_exception", `[1:1] [ids] unknown field [${other}]`);
  if (!Array.isArray(values)) throw illegalArgument("[ids] requires providing ids");
  const list = values.map((id) => bind(to, show(id))).join(", ");
  return constant(list === "" ? "0" : `d.id in (${list})`, outer * toBoost(own));
}

export function range(to: Compilation, body: JsonObject, outer: number): Compiled {
  const [name, options] = onlyField("range", body);
  if (!isObject(options)) throw parsingException(`[range] query malformed, no start_object after query name`);
  const { boost: own, ...bounds } = options;
  const field = to.snapshot.index.mapping.fields.get(name);
  const conditions: string[] = [];
  for (const [relation, bound] of Object.entries(bounds)) {
    if (["format", "time_zone", "relation"].includes(relation)) throw unsupported(`the range option [${relation}]`);
    const operator = comparisons[relation];
    if (operator === undefined) throw parsingException(`[range] query does not support [${relation}]`);
    if (bound === null || field === undefined) continue;
    if (field.type === "text") throw unsupported("a range of words");
    const value = rangeBound(to, field, relation, bound);
    conditions.push(`x ${operator} ${bind(to, value)}`);
  }
  if (field === undefined) return nothing;
  const column = `d.${valueColumn(field)}`;
  const all = conditions.join(" and ") || "1";
  const match = `case typeof(${column}) when 'null' then 0 when 'blob' then exists (select 1 from (select value as x from json_each(cast(${column} as text))) where ${all}) else ${all.replaceAll("x ", `${column} `)} end`;
  return constant(`(${match})`, outer * toBoost(own));
}

const comparisons: Record<string, string> = { gt: ">", gte: ">=", lt: "<", lte: "<=" };

function rangeBound(to: Compilation, field: Field, relation: string, bound: Json): Value {
  if (field.type === "date" && typeof bound === "string") {
    if (/^now|\|\|/.test(bound)) throw unsupported("date mathematics");
    try {
      return dateBound(bound, relation === "gt" || relation === "lte");
    } catch (fault) {
      if (!(fault instanceof BadValue)) throw fault;
      throw shardFailure(to.snapshot.index, 400, {
        type: "parse_exception",
        reason: `${fault.failure.reason}: [${fault.failure.reason}]`,
        caused_by: fault.failure,
      });
    }
  }
  if ((field.type === "long" || field.type === "integer") && (typeof bound === "number" || typeof bound === "bigint")) {
    return bound;
  }
  const value = queryValue(to, field, bound);
  if (value === undefined) throw unsupported(`the bound [${show(bound)}] of [${field.name}]`);
  return value;
}

export function exists(to: Compilation, body: JsonObject, outer: number): Compiled {
  const { field: name, boost: own, ...rest } = body;
  refuseRest("exists", rest);
  if (typeof name !== "string") throw parsingException("[exists] must be provided with a [field]");
  const field = to.snapshot.index.mapping.fields.get(name);
  if (field === undefined || (field.type === "text" && !field.indexed)) return nothing;
  const column = field.type === "text" ? wordsColumn(field) : valueColumn(field);
  return constant(`d.${column} is not null`, outer * toBoost(own));
}

/** Several values of one field lie as JSON in a blob. */
function holds(field: Field, value: string): string {
  const column = `d.${valueColumn(field)}`;
  return `(${column} = ${value} or (typeof(${column}) = 'blob' and exists (select 1 from json_each(cast(${column} as text)) where value = ${value})))`;
}

/** A value of a query as the field keeps it. Undefined when no document can have it (a fraction for a whole number). */
function queryValue(to: Compilation, field: Field, value: Json): Value | undefined {
  try {
    const whole = field.type === "long" || field.type === "integer";
    if (whole && typeof value === "number" && !Number.isInteger(value)) return undefined;
    if (whole && typeof value === "string" && /^[+-]?\d+$/.test(value)) return BigInt(value);
    if (whole && typeof value === "bigint") return value;
    return toValue(field.type, value);
  } catch (fault) {
    if (!(fault instanceof BadValue)) throw fault;
    const reason = fault.failure.reason ?? "";
    const type = reason.startsWith("For input string") ? "number_format_exception" : fault.failure.type;
    throw queryShardException(to.snapshot.index, `failed to create query: ${reason}`, { type, reason });
  }
}

export function checkIndexed(to: Compilation, field: Field): void {
  if (field.indexed) return;
  const reason = `Cannot search on field [${field.name}] since it is not indexed.`;
  throw queryShardException(to.snapshot.index, `failed to create query: ${reason}`, {
    type: "illegal_argument_exception",
    reason,
  });
}

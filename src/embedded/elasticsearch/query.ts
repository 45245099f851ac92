import type { SQLQueryBindings } from "bun:sqlite";
import { analyzers } from "./analysis/cjk.ts";
import {
  illegalArgument,
  parsingException,
  queryShardException,
  Refusal,
  shardFailure,
  unsupported,
} from "./errors.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import { type Field, show } from "./mapping.ts";
import type { Snapshot } from "./snapshot.ts";
import { countsTable, lengthColumn, termsTable, valueColumn, wordsColumn } from "./store.ts";
import { BadValue, dateBound, toValue, type Value } from "./values.ts";

/**
 * The query language, turned into one SQL select over the rows of `docs` (as `d`).
 * Every clause becomes two expressions: whether a row matches, and its score where it does. Words are looked up in the
 * postings of FTS5, each text query in a common table expression that is joined to the row; its score is Lucene's BM25.
 */
export interface Compiled {
  readonly match: string;
  readonly score: string;
  /** The table of this clause alone, where it is nothing else than its table. */
  readonly table?: string;
}

export interface Compilation {
  readonly snapshot: Snapshot;
  readonly tables: string[];
  /** Those of the tables that rows are joined to. */
  readonly joined: Set<string>;
  readonly parameters: SQLQueryBindings[];
  /** What was looked for in text, for the highlighter. */
  readonly wanted: Wanted[];
}

/** Words of one clause: a document whose field holds fewer than `needed` of them was not found by it. */
export interface Wanted {
  readonly field: string;
  readonly words: ReadonlySet<string>;
  readonly needed: number;
}

const k1 = 1.2;
const b = 0.75;

export function startCompilation(snapshot: Snapshot): Compilation {
  return { snapshot, tables: [], joined: new Set(), parameters: [], wanted: [] };
}

/** A value as a numbered parameter of the statement. */
export function bind(to: Compilation, value: SQLQueryBindings): string {
  to.parameters.push(value);
  return `?${to.parameters.length}`;
}

type Clause = (to: Compilation, body: JsonObject, boost: number, scoring: boolean) => Compiled;

const clauses: Record<string, Clause> = {
  match_all: (_to, body, boost) => {
    const { boost: own, ...rest } = body;
    refuseRest("match_all", rest);
    return constant("1", boost * toBoost(own));
  },
  match_none: (_to, body) => {
    refuseRest("match_none", body);
    return nothing;
  },
  bool,
  term,
  terms,
  ids,
  range,
  exists,
  match,
  multi_match: multiMatch,
};

/** Known to Elasticsearch, not to this engine. */
const foreign = new Set(
  `boosting combined_fields constant_score dis_max distance_feature function_score fuzzy
  geo_bounding_box geo_distance intervals knn match_bool_prefix match_phrase match_phrase_prefix
  more_like_this nested percolate pinned prefix query_string rank_feature regexp rule script
  script_score semantic simple_query_string span_near span_term terms_set wildcard wrapper`.split(/\s+/),
);

/** Compiles one query object. Throws what Elasticsearch answers to a wrong one. */
export function compile(to: Compilation, query: Json | undefined, boost: number, scoring: boolean): Compiled {
  if (!isObject(query)) throw parsingException("[_na] query malformed, must start with start_object");
  const [first, second] = Object.entries(query);
  if (first === undefined) throw illegalArgument("query malformed, empty clause found at [1:1]");
  const [name, body] = first;
  const clause = clauses[name];
  if (clause === undefined) {
    if (foreign.has(name)) throw unsupported(`the query [${name}]`);
    throw parsingException(`unknown query [${name}]`, {
      caused_by: { type: "named_object_not_found_exception", reason: `[1:1] unknown field [${name}]` },
    });
  }
  if (second !== undefined) {
    throw parsingException(`[${name}] malformed query, expected [END_OBJECT] but found [FIELD_NAME]`);
  }
  if (!isObject(body)) throw parsingException(`[${name}] query malformed, no start_object after query name`);
  return clause(to, body, boost, scoring);
}

const nothing: Compiled = { match: "0", score: "0.0" };

function constant(match: string, boost: number): Compiled {
  return { match, score: real(boost) };
}

function bool(to: Compilation, body: JsonObject, outer: number, scoring: boolean): Compiled {
  const { must, filter, should, must_not, minimum_should_match, boost: own, ...rest } = body;
  const [other] = Object.keys(rest);
  if (other !== undefined) throw new Refusal(400, "x_content_parse_exception", `[1:1] [bool] unknown field [${other}]`);
  const boost = outer * toBoost(own);
  const compileAll = (clause: Json | undefined, scores: boolean) =>
    listOf(clause).map((query) => compile(to, query, boost, scores && scoring));
  const musts = compileAll(must, true);
  const filters = compileAll(filter, false);
  const shoulds = compileAll(should, true);
  // What must not be found is nothing to highlight.
  const wanted = to.wanted.length;
  const nots = compileAll(must_not, false);
  to.wanted.length = wanted;
  if (musts.length + filters.length + shoulds.length + nots.length === 0) return constant("1", boost);
  const free = musts.length + filters.length > 0 ? 0 : 1;
  const needed =
    minimum_should_match === undefined
      ? Math.min(free, shoulds.length)
      : toMinimum(minimum_should_match, shoulds.length);
  const conditions = [...musts, ...filters].map(({ match }) => match);
  for (const { match } of nots) conditions.push(`not (${match})`);
  if (needed > shoulds.length) return nothing;
  if (needed === 1) conditions.push(`(${shoulds.map(({ match }) => match).join(" or ")})`);
  else if (needed > 1) conditions.push(`(${shoulds.map(({ match }) => `(${match})`).join(" + ")}) >= ${needed}`);
  const scores = musts.map(({ score }) => score);
  for (const { match, score } of shoulds) scores.push(`case when ${match} then ${score} else 0.0 end`);
  return { match: `(${conditions.join(" and ") || "1"})`, score: `(${scores.join(" + ") || "0.0"})` };
}

function term(to: Compilation, body: JsonObject, outer: number, scoring: boolean): Compiled {
  const [name, options] = onlyField("term", body);
  const { value, boost: own, ...rest } = isObject(options) ? options : { value: options };
  refuseRest("term", rest);
  if (value === undefined || value === null) throw illegalArgument("value cannot be null");
  return equals(to, name, value, outer * toBoost(own), scoring);
}

/** Rows whose field holds this value, or for text this very word. */
function equals(to: Compilation, name: string, value: Json, boost: number, scoring: boolean): Compiled {
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

function terms(to: Compilation, body: JsonObject, outer: number): Compiled {
  const { boost: own, ...fields } = body;
  const [name, values] = onlyField("terms", fields);
  if (!Array.isArray(values)) throw parsingException(`[terms] query does not support [${name}]`);
  const matches = values.map((value) => equals(to, name, value, 1, false).match);
  return constant(`(${matches.join(" or ") || "0"})`, outer * toBoost(own));
}

function ids(to: Compilation, body: JsonObject, outer: number): Compiled {
  const { values, boost: own, ...rest } = body;
  const [other] = Object.keys(rest);
  if (other !== undefined) throw new Refusal(400, "x_content_parse_exception", `[1:1] [ids] unknown field [${other}]`);
  if (!Array.isArray(values)) throw illegalArgument("[ids] requires providing ids");
  const list = values.map((id) => bind(to, show(id))).join(", ");
  return constant(list === "" ? "0" : `d.id in (${list})`, outer * toBoost(own));
}

function range(to: Compilation, body: JsonObject, outer: number): Compiled {
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

function exists(to: Compilation, body: JsonObject, outer: number): Compiled {
  const { field: name, boost: own, ...rest } = body;
  refuseRest("exists", rest);
  if (typeof name !== "string") throw parsingException("[exists] must be provided with a [field]");
  const field = to.snapshot.index.mapping.fields.get(name);
  if (field === undefined || (field.type === "text" && !field.indexed)) return nothing;
  const column = field.type === "text" ? wordsColumn(field) : valueColumn(field);
  return constant(`d.${column} is not null`, outer * toBoost(own));
}

function match(to: Compilation, body: JsonObject, outer: number, scoring: boolean): Compiled {
  const [name, options] = onlyField("match", body);
  const {
    query,
    operator,
    minimum_should_match,
    boost: own,
    lenient,
    ...rest
  } = isObject(options) ? options : { query: options };
  refuseRest("match", rest);
  if (query === undefined || query === null) throw illegalArgument("[match] requires query value");
  const boost = outer * toBoost(own);
  return matchField(
    to,
    name,
    { text: show(query), operator, minimum: minimum_should_match, lenient: lenient === true },
    boost,
    scoring,
  );
}

interface MatchOptions {
  readonly text: string;
  readonly operator: Json | undefined;
  readonly minimum: Json | undefined;
  readonly lenient: boolean;
}

function matchField(to: Compilation, name: string, wanted: MatchOptions, boost: number, scoring: boolean): Compiled {
  const all = isAnd(wanted.operator);
  const field = to.snapshot.index.mapping.fields.get(name);
  if (field === undefined) return nothing;
  if (field.type !== "text") {
    try {
      return equals(to, name, wanted.text, boost, scoring);
    } catch (fault) {
      if (wanted.lenient && fault instanceof Refusal) return nothing;
      throw fault;
    }
  }
  checkIndexed(to, field);
  const found = (analyzers.get(field.analyzer)?.(wanted.text) ?? []).map(({ token }) => token);
  if (found.length === 0) return nothing;
  const needed = wanted.minimum === undefined ? 1 : Math.max(1, toMinimum(wanted.minimum, found.length));
  return words(to, field, found, all ? found.length : needed, boost);
}

function multiMatch(to: Compilation, body: JsonObject, outer: number, scoring: boolean): Compiled {
  const {
    query,
    fields,
    type = "best_fields",
    operator,
    tie_breaker,
    minimum_should_match,
    boost: own,
    lenient,
    ...rest
  } = body;
  refuseRest("multi_match", rest);
  if (typeof type !== "string" || !multiMatchTypes.has(type)) {
    throw new Refusal(
      400,
      "parse_exception",
      `failed to parse [multi_match] query type [${show(type)}]. unknown type.`,
    );
  }
  if (type !== "best_fields" && type !== "most_fields") throw unsupported(`the multi_match type [${type}]`);
  if (query === undefined || query === null) throw parsingException("No text specified for multi_match query");
  const names = listOf(fields).map(show);
  if (names.length === 0 || names.some((name) => name.includes("*")))
    throw unsupported("multi_match without named fields");
  const boost = outer * toBoost(own);
  const wanted = { text: show(query), operator, minimum: minimum_should_match, lenient: lenient === true };
  const parts = names.flatMap((name) => {
    const [, field = name, factor = "1"] = /^(.*?)(?:\^([\d.]+))?$/.exec(name) ?? [];
    const part = matchField(to, field, wanted, boost * Number(factor), scoring);
    return part === nothing ? [] : [part];
  });
  const tie = type === "most_fields" ? 1 : Number(tie_breaker ?? 0);
  const [only, second] = parts;
  if (only === undefined) return nothing;
  if (second === undefined) return only;
  if (parts.every(({ table }) => table !== undefined)) {
    // Rows need the common table alone; a join to the parts would cost as much again for each.
    for (const { table = "" } of parts) to.joined.delete(table);
    const rows = parts.map(({ table }) => `select doc, score from ${table}`).join(" union all ");
    return join(to, `select doc, max(score) + ${real(tie)} * (sum(score) - max(score)) from (${rows}) group by doc`);
  }
  const scores = parts.map((part) => `case when ${part.match} then ${part.score} else 0.0 end`);
  const best = `max(${scores.join(", ")})`;
  return {
    match: `(${parts.map((part) => part.match).join(" or ")})`,
    score: `(${best} + ${real(tie)} * (${scores.join(" + ")} - ${best}))`,
  };
}

const multiMatchTypes = new Set([
  "best_fields",
  "most_fields",
  "cross_fields",
  "phrase",
  "phrase_prefix",
  "bool_prefix",
]);

/** Rows of which at least `needed` of the words are in the field, scored as Lucene's BM25 does. A word given twice counts twice. */
function words(to: Compilation, field: Field, wanted: readonly string[], needed: number, boost: number): Compiled {
  const { index, db, words: counted } = to.snapshot;
  to.wanted.push({
    field: field.name,
    words: new Set(wanted),
    needed: new Set(wanted).size === wanted.length ? needed : 1,
  });
  const { documents, words: total } = counted.get(field.name) ?? { documents: 0, words: 0 };
  const frequency = db.query<{ doc: bigint }, [string]>(`select doc from ${countsTable(index, field)} where term = ?`);
  const norm = `${k1} * (${1 - b} + ${b} * d.${lengthColumn(field)} / ${real(total / Math.max(1, documents))})`;
  const selects: string[] = [];
  for (const [i, word] of wanted.entries()) {
    const found = Number(frequency.get(word)?.doc ?? 0);
    if (found === 0) continue;
    const weight = boost * (k1 + 1) * idf(documents, found);
    selects.push(`select ${i}, p.doc as doc, ${real(weight)} * p.tf / (p.tf + ${norm}) as weight from (
      select doc, count(*) as tf from ${termsTable(index, field)} where term = ${bind(to, word)} group by doc) p
      join docs_${index.number} d on d.seq = p.doc`);
  }
  if (selects.length < needed) return nothing;
  return join(
    to,
    `select doc, sum(weight) from (${selects.join(" union all ")}) group by doc having count(*) >= ${needed}`,
  );
}

function join(to: Compilation, select: string): Compiled {
  const table = `m${to.tables.length}`;
  to.tables.push(`${table}(doc, score) as materialized (${select})`);
  to.joined.add(table);
  return { match: `${table}.doc is not null`, score: `coalesce(${table}.score, 0.0)`, table };
}

/** A keyword scores as a text of as many words as it has values, without Lucene's norms. */
function keywordScore(to: Compilation, field: Field, match: string, boost: number): string {
  const column = `d.${valueColumn(field)}`;
  const { index, db } = to.snapshot;
  const row = db
    .query<{ documents: bigint; total: bigint; found: bigint }, SQLQueryBindings[]>(
      `select count(${column}) as documents,
              coalesce(sum(case typeof(${column}) when 'null' then 0 when 'blob' then json_array_length(cast(${column} as text)) else 1 end), 0) as total,
              count(*) filter (where ${match.replaceAll(/\?\d+/g, "?1")}) as found
         from docs_${index.number} d`,
    )
    .get(to.parameters.at(-1) ?? null);
  const documents = Number(row?.documents ?? 0);
  const average = Number(row?.total ?? 0) / Math.max(1, documents);
  const tf = 1 / (1 + k1 * (1 - b + b / Math.max(1, average)));
  return real(boost * (k1 + 1) * idf(documents, Number(row?.found ?? 0)) * tf);
}

function idf(documents: number, found: number): number {
  return Math.log(1 + (documents - found + 0.5) / (found + 0.5));
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

function checkIndexed(to: Compilation, field: Field): void {
  if (field.indexed) return;
  const reason = `Cannot search on field [${field.name}] since it is not indexed.`;
  throw queryShardException(to.snapshot.index, `failed to create query: ${reason}`, {
    type: "illegal_argument_exception",
    reason,
  });
}

function onlyField(query: string, body: JsonObject): [string, Json] {
  const [first, second] = Object.entries(body);
  if (first === undefined) throw illegalArgument("fieldName must not be null or empty");
  if (second !== undefined) {
    throw parsingException(`[${query}] query doesn't support multiple fields, found [${first[0]}] and [${second[0]}]`);
  }
  return first;
}

function refuseRest(query: string, rest: JsonObject): void {
  const [other] = Object.keys(rest);
  if (other !== undefined) throw parsingException(`[${query}] query does not support [${other}]`);
}

function toBoost(boost: Json | undefined): number {
  const factor = Number(boost ?? 1);
  if (Number.isFinite(factor) && factor >= 0) return factor;
  throw illegalArgument(
    `negative [boost] are not allowed in [${show(boost ?? null)}], use a value between 0 and 1 to deboost`,
  );
}

function toMinimum(value: Json, clauses: number): number {
  const text = show(value).trim();
  const [, sign, amount, percent] = /^(-?)(\d+)(%?)$/.exec(text) ?? [];
  if (amount === undefined) throw unsupported(`the minimum_should_match [${text}]`);
  const count = percent === "%" ? Math.trunc((clauses * Number(amount)) / 100) : Number(amount);
  return sign === "-" ? Math.max(0, clauses - count) : count;
}

function isAnd(operator: Json | undefined): boolean {
  const name = typeof operator === "string" ? operator.toLowerCase() : (operator ?? "or");
  if (name === "and" || name === "or") return name === "and";
  const shown = show(operator ?? null).toUpperCase();
  throw illegalArgument(`No enum constant org.elasticsearch.index.query.Operator.${shown}`);
}

function listOf(value: Json | undefined): Json[] {
  if (value === undefined || value === null) return [];
  return Array.isArray(value) ? value : [value];
}

/** A number as SQL that is not an integer there. */
function real(number: number): string {
  const text = String(number);
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}

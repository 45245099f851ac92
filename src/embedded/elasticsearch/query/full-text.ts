import { analyzers } from "../analysis/cjk.ts";
import { illegalArgument, parsingException, Refusal, unsupported } from "../errors.ts";
import { isObject, type Json, type JsonObject } from "../json.ts";
import { show } from "../mapping.ts";
import { words } from "./bm25.ts";
import { listOf, onlyField, refuseRest, toBoost, toMinimum } from "./clause.ts";
import { type Compilation, type Compiled, join, nothing, real } from "./compilation.ts";
import { checkIndexed, equals } from "./term-level.ts";

export function match(to: Compilation, body: JsonObject, outer: number, scoring: boolean): Compiled {
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

export function multiMatch(to: Compilation, body: JsonObject, outer: number, scoring: boolean): Compiled {
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

function isAnd(operator: Json | undefined): boolean {
  const name = typeof operator === "string" ? operator.toLowerCase() : (operator ?? "or");
  if (name === "and" || name === "or") return name === "and";
  const shown = show(operator ?? null).toUpperCase();
  throw illegalArgument(`No enum constant org.elasticsearch.index.query.Operator.${shown}`);
}

import { illegalArgument, parsingException, Refusal, unsupported } from "../errors.ts";
import { isObject, type Json, type JsonObject } from "../json.ts";
import { type Clause, listOf, refuseRest, toBoost, toMinimum } from "./clause.ts";
import { type Compilation, type Compiled, constant, nothing } from "./compilation.ts";
import { match, multiMatch } from "./full-text.ts";
import { exists, ids, range, term, terms } from "./term-level.ts";

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

import { illegalArgument, invalidRequest, parsingException, unsupported } from "./errors.ts";
import { type Highlight, parseHighlight } from "./highlight.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import { show } from "./mapping.ts";
import { readSourceFilter, type SourceFilter } from "./source.ts";

export interface SearchRequest {
  readonly query: Json;
  readonly from: number;
  readonly size: number;
  readonly sort: Json | undefined;
  readonly searchAfter: Json | undefined;
  /** How many hits are counted exactly; -1 for none at all. */
  readonly countUpTo: number;
  readonly source: SourceFilter;
  readonly version: boolean;
  readonly seqNo: boolean;
  readonly trackScores: boolean;
  readonly highlight: Highlight | undefined;
}

/** Known to Elasticsearch, not to this engine. */
const foreign = new Set(
  `aggregations aggs collapse docvalue_fields explain ext fields indices_boost knn min_score
  post_filter profile rank rescore retriever runtime_mappings script_fields slice stats stored_fields
  suggest terminate_after`.split(/\s+/),
);

/** Reads the body of a search, `pit` apart. Throws what Elasticsearch answers to a wrong one. */
export function parseSearch(body: JsonObject): SearchRequest {
  const {
    query,
    from,
    size,
    sort,
    search_after,
    track_total_hits,
    _source,
    version,
    seq_no_primary_term,
    track_scores,
  } = body;
  const { highlight, pit: _pit, timeout: _timeout, ...rest } = body;
  for (const [key, value] of Object.entries(rest)) {
    if (foreign.has(key)) throw unsupported(`the search option [${key}]`);
    if (!known.has(key)) throw parsingException(`Unknown key for a ${tokenName(value)} in [${key}].`);
  }
  const request: SearchRequest = {
    query: query ?? { match_all: {} },
    from: wholeNumber("from", from, 0),
    size: wholeNumber("size", size, 10),
    sort,
    searchAfter: search_after,
    countUpTo:
      track_total_hits === true
        ? Number.POSITIVE_INFINITY
        : track_total_hits === false
          ? -1
          : Number(track_total_hits ?? 10_000),
    source: readSourceFilter(_source),
    version: version === true,
    seqNo: seq_no_primary_term === true,
    trackScores: track_scores === true,
    highlight: highlight === undefined ? undefined : parseHighlight(highlight),
  };
  if (request.from < 0) throw illegalArgument(`[from] parameter cannot be negative but was [${request.from}]`);
  if (request.size < 0) throw illegalArgument(`[size] parameter cannot be negative, found [${request.size}]`);
  if (search_after !== undefined && request.from > 0) {
    throw invalidRequest("[from] parameter must be set to 0 when [search_after] is used");
  }
  return request;
}

const known = new Set(
  "query from size sort search_after track_total_hits _source version seq_no_primary_term track_scores".split(" "),
);

function wholeNumber(name: string, value: Json | undefined, otherwise: number): number {
  const number = Number(value ?? otherwise);
  if (!Number.isInteger(number))
    throw illegalArgument(`Failed to parse int parameter [${name}] with value [${show(value ?? null)}]`);
  return number;
}

function tokenName(value: Json): string {
  if (Array.isArray(value)) return "START_ARRAY";
  if (isObject(value)) return "START_OBJECT";
  if (typeof value === "string") return "VALUE_STRING";
  if (typeof value === "boolean") return "VALUE_BOOLEAN";
  return value === null ? "VALUE_NULL" : "VALUE_NUMBER";
}

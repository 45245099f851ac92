import { getAliases, updateAliases } from "./aliases.ts";
import { analyze } from "./analyze.ts";
import { optionalObject, requiredObject } from "./body.ts";
import { bulk } from "./bulk.ts";
import { getDocument, getDocuments, getSource } from "./documents.ts";
import { illegalArgument, invalidRequest } from "./errors.ts";
import { clusterHealth, createIndex, deleteIndices, describe, putMapping, putSettings } from "./indices.ts";
import { isObject, type Json, type JsonObject, RawJson, type Reply } from "./json.ts";
import { show } from "./mapping.ts";
import { resolve, resolveOne } from "./names.ts";
import { count, search } from "./search.ts";
import { parseSearch } from "./search-request.ts";
import { blockOf, parseTime } from "./settings.ts";
import { checkPointId, type PointsInTime, type Snapshot } from "./snapshot.ts";
import { readSourceFilter, type SourceFilter } from "./source.ts";
import type { Index, Store } from "./store.ts";

/** The Elasticsearch version whose API this engine speaks. */
const version = "9.2.2";

export interface Call {
  readonly store: Store;
  readonly points: PointsInTime;
  /** The named parts of the path. */
  readonly path: { readonly [part: string]: string };
  readonly query: ReadonlyMap<string, string>;
  readonly body: string;
}

export interface Answer {
  readonly status: number;
  readonly body: Reply;
}

export interface Route {
  readonly methods: readonly string[];
  readonly pattern: string;
  readonly parameters: readonly string[];
  readonly run: (call: Call) => Answer;
}

const waiting = ["master_timeout", "timeout", "wait_for_active_shards"];
const expanding = [
  "ignore_unavailable",
  "allow_no_indices",
  "expand_wildcards",
  "local",
  "flat_settings",
  "include_defaults",
];
const sourceParameters = ["_source", "_source_includes", "_source_excludes"];

/** The paths of the API. Where two fit, the one without a placeholder there comes first. */
export const routes: readonly Route[] = [
  { methods: ["GET", "HEAD"], pattern: "/", parameters: [], run: () => ok(about) },
  {
    methods: ["GET"],
    pattern: "/_cluster/health",
    parameters: ["wait_for_status", "level", ...waiting],
    run: ({ store }) => ok(clusterHealth([...store.indices.values()])),
  },
  {
    methods: ["GET"],
    pattern: "/_cluster/health/{index}",
    parameters: ["wait_for_status", "level", ...waiting],
    run: ({ store, path }) => ok(clusterHealth(resolve(store, path["index"] ?? ""))),
  },
  {
    methods: ["POST", "PUT"],
    pattern: "/_bulk",
    parameters: ["refresh", "require_alias", "timeout", "wait_for_active_shards"],
    run: runBulk,
  },
  {
    methods: ["POST", "PUT"],
    pattern: "/{index}/_bulk",
    parameters: ["refresh", "require_alias", "timeout", "wait_for_active_shards"],
    run: runBulk,
  },
  { methods: ["GET", "POST"], pattern: "/_search", parameters: searchParameters(), run: runSearch },
  { methods: ["GET", "POST"], pattern: "/{index}/_search", parameters: searchParameters(), run: runSearch },
  { methods: ["GET", "POST"], pattern: "/{index}/_count", parameters: expanding, run: runCount },
  { methods: ["GET", "POST"], pattern: "/_mget", parameters: sourceParameters, run: runMget },
  { methods: ["GET", "POST"], pattern: "/{index}/_mget", parameters: sourceParameters, run: runMget },
  { methods: ["GET", "POST"], pattern: "/_analyze", parameters: [], run: runAnalyze },
  { methods: ["GET", "POST"], pattern: "/{index}/_analyze", parameters: [], run: runAnalyze },
  { methods: ["POST"], pattern: "/{index}/_pit", parameters: ["keep_alive", ...expanding], run: openPoint },
  { methods: ["DELETE"], pattern: "/_pit", parameters: [], run: closePoint },
  { methods: ["GET", "HEAD"], pattern: "/_alias", parameters: expanding, run: runAliases },
  { methods: ["GET", "HEAD"], pattern: "/_alias/{name}", parameters: expanding, run: runAliases },
  { methods: ["GET", "HEAD"], pattern: "/{index}/_alias", parameters: expanding, run: runAliases },
  { methods: ["GET", "HEAD"], pattern: "/{index}/_alias/{name}", parameters: expanding, run: runAliases },
  {
    methods: ["POST"],
    pattern: "/_aliases",
    parameters: waiting,
    run: ({ store, body }) => ok(updateAliases(store, requiredObject(body))),
  },
  {
    methods: ["GET", "POST"],
    pattern: "/_refresh",
    parameters: expanding,
    run: ({ store }) => ok(shards(store.indices.size)),
  },
  {
    methods: ["GET", "POST"],
    pattern: "/{index}/_refresh",
    parameters: expanding,
    run: ({ store, path }) => ok(shards(resolve(store, path["index"] ?? "").length)),
  },
  {
    methods: ["GET"],
    pattern: "/{index}/_settings",
    parameters: expanding,
    run: ({ store, path }) => ok(describe(store, path["index"] ?? "", ["settings"])),
  },
  {
    methods: ["PUT"],
    pattern: "/{index}/_settings",
    parameters: [...waiting, ...expanding],
    run: ({ store, path, body }) => ok(putSettings(store, path["index"] ?? "", requiredObject(body))),
  },
  {
    methods: ["GET"],
    pattern: "/{index}/_mapping",
    parameters: expanding,
    run: ({ store, path }) => ok(describe(store, path["index"] ?? "", ["mappings"])),
  },
  {
    methods: ["PUT", "POST"],
    pattern: "/{index}/_mapping",
    parameters: [...waiting, ...expanding],
    run: ({ store, path, body }) => ok(putMapping(store, path["index"] ?? "", requiredObject(body))),
  },
  {
    methods: ["GET", "HEAD"],
    pattern: "/{index}/_doc/{id}",
    parameters: [...sourceParameters, "realtime", "refresh"],
    run: ({ store, path, query }) => getDocument(store, path["index"] ?? "", path["id"] ?? "", sourceFilter(query)),
  },
  {
    methods: ["GET", "HEAD"],
    pattern: "/{index}/_source/{id}",
    parameters: [...sourceParameters, "realtime", "refresh"],
    run: ({ store, path, query }) => ok(getSource(store, path["index"] ?? "", path["id"] ?? "", sourceFilter(query))),
  },
  {
    methods: ["PUT"],
    pattern: "/{index}",
    parameters: waiting,
    run: ({ store, path, body }) => ok(createIndex(store, path["index"] ?? "", optionalObject(body))),
  },
  {
    methods: ["GET", "HEAD"],
    pattern: "/{index}",
    parameters: expanding,
    run: ({ store, path }) => ok(describe(store, path["index"] ?? "", ["aliases", "mappings", "settings"])),
  },
  {
    methods: ["DELETE"],
    pattern: "/{index}",
    parameters: [...waiting, ...expanding],
    run: ({ store, path }) => ok(deleteIndices(store, path["index"] ?? "")),
  },
];

const about = {
  name: "wordloom-embedded",
  cluster_name: "wordloom",
  cluster_uuid: "d29yZGxvb20tZW1iZWRkZWQ",
  version: {
    number: version,
    build_flavor: "default",
    build_type: "embedded",
    build_snapshot: false,
    lucene_version: "10.3.2",
    minimum_wire_compatibility_version: "8.19.0",
    minimum_index_compatibility_version: "8.0.0",
  },
  tagline: "You Know, for Search",
};

function searchParameters(): string[] {
  return [
    ...sourceParameters,
    ...expanding,
    "from",
    "size",
    "track_total_hits",
    "version",
    "request_cache",
    "preference",
  ];
}

function runBulk({ store, path, query, body }: Call): Answer {
  const refresh = query.get("refresh") ?? "false";
  if (!["", "true", "false", "wait_for"].includes(refresh)) {
    throw illegalArgument(`Unknown value for refresh: [${refresh}].`);
  }
  const text = bulk(store, body, {
    index: path["index"],
    requireAlias: query.get("require_alias") === "true",
    refresh: refresh === "" || refresh === "true",
  });
  return ok(new RawJson(text));
}

function runSearch({ store, points, path, query, body }: Call): Answer {
  const given = optionalObject(body);
  const asked: JsonObject = { ...given };
  for (const name of ["from", "size"]) {
    const value = query.get(name);
    if (value !== undefined) asked[name] = value;
  }
  for (const name of ["version", "track_total_hits"]) {
    const value = query.get(name);
    if (value !== undefined) asked[name] = parameterValue(value);
  }
  const filter = sourceFilter(query);
  const request = parseSearch(asked);
  const chosen = filter === true ? request : { ...request, source: filter };
  const { pit } = given;
  if (pit === undefined) return ok(search(present(store, readable(store, path["index"] ?? "_all")), chosen, undefined));
  if (path["index"] !== undefined) {
    throw invalidRequest("[indices] cannot be used with point in time. Do not specify any index with point in time.");
  }
  const { id, keep_alive } = isObject(pit) ? pit : {};
  if (typeof id !== "string") throw illegalArgument("point int time id is not provided");
  checkPointId(id);
  const keepAliveMs = keep_alive === undefined ? undefined : parseTime("keep_alive", show(keep_alive));
  const snapshot = points.get(id, keepAliveMs);
  const block = blockOf(store.indices.get(snapshot.index.name) ?? snapshot.index, "read");
  if (block !== undefined) throw block;
  return ok(search(snapshot, chosen, id));
}

function runCount({ store, path, body }: Call): Answer {
  return ok(count(present(store, readable(store, path["index"] ?? "")), optionalObject(body)));
}

function runMget({ store, path, query, body }: Call): Answer {
  return ok(getDocuments(store, path["index"], requiredObject(body), sourceFilter(query)));
}

function runAnalyze({ store, path, body }: Call): Answer {
  const index = path["index"] === undefined ? undefined : resolveOne(store, path["index"]);
  return ok(analyze(index?.mapping, requiredObject(body)));
}

function runAliases({ store, path }: Call): Answer {
  return getAliases(store, path["index"], path["name"]);
}

function openPoint({ store, points, path, query, body }: Call): Answer {
  const keepAlive = query.get("keep_alive");
  if (keepAlive === undefined) throw invalidRequest("[keep_alive] is not specified");
  const [other] = Object.keys(optionalObject(body));
  if (other !== undefined) throw illegalArgument(`[open_point_in_time] unknown field [${other}]`);
  const index = readable(store, path["index"] ?? "");
  const id = points.open(index, parseTime("keep_alive", keepAlive));
  return ok({ id, _shards: { total: 1, successful: 1, skipped: 0, failed: 0 } });
}

function closePoint({ points, body }: Call): Answer {
  const { id } = requiredObject(body);
  const ids = (Array.isArray(id) ? id : [id]).filter((item) => typeof item === "string");
  if (ids.length === 0) throw illegalArgument("Required [id]");
  for (const one of ids) checkPointId(one);
  const freed = points.close(ids);
  return { status: freed > 0 ? 200 : 404, body: { succeeded: freed > 0, num_freed: freed } };
}

function readable(store: Store, name: string): Index {
  const index = resolveOne(store, name);
  const block = blockOf(index, "read");
  if (block !== undefined) throw block;
  return index;
}

function present({ db }: Store, index: Index): Snapshot {
  return { db, index, words: index.words };
}

function sourceFilter(query: ReadonlyMap<string, string>): SourceFilter {
  const whole = query.get("_source");
  const names = (text: string | undefined): Json => text?.split(",") ?? [];
  if (whole === "true" || whole === "false") return whole === "true";
  const includes = query.get("_source_includes") ?? whole;
  const excludes = query.get("_source_excludes");
  if (includes === undefined && excludes === undefined) return true;
  return readSourceFilter({ includes: names(includes), excludes: names(excludes) });
}

function parameterValue(text: string): Json {
  if (text === "true" || text === "false" || text === "") return text !== "false";
  return Number(text);
}

function shards(total: number): Reply {
  return { _shards: { total, successful: total, failed: 0 } };
}

function ok(body: Reply): Answer {
  return { status: 200, body };
}

import { getAliases, updateAliases } from "./aliases.ts";
import { analyze } from "./analyze.ts";
import { optionalObject, requiredObject } from "./body.ts";
import { bulk } from "./bulk.ts";
import { type Answer, type Call, ok, sourceFilter } from "./call.ts";
import { getDocument, getDocuments, getSource } from "./documents.ts";
import { illegalArgument } from "./errors.ts";
import { clusterHealth, createIndex, deleteIndices, describe, putMapping, putSettings } from "./indices.ts";
import { RawJson, type Reply } from "./json.ts";
import { resolve, resolveOne } from "./names.ts";
import { closePoint, openPoint, runCount, runSearch } from "./search-calls.ts";

/** The Elasticsearch version whose API this engine speaks. */
const version = "9.2.2";

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

function shards(total: number): Reply {
  return { _shards: { total, successful: total, failed: 0 } };
}

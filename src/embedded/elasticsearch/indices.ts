import { readAliases, showAliases } from "./aliases.ts";
import { object } from "./body.ts";
import { illegalArgument, indexNotFound, Refusal } from "./errors.ts";
import { isObject, type JsonObject, type Reply } from "./json.ts";
import { emptyMapping, mergeMapping, showMapping } from "./mapping.ts";
import { checkIndexName, indicesOf, resolve } from "./names.ts";
import { blockOf, checkDynamic, checkSettings, flattenSettings } from "./settings.ts";
import { forgetStatements } from "./statements.ts";
import { changeIndices, dropIndex, type Index, insertIndex, type Store } from "./store.ts";
import { addField } from "./tables.ts";

const acknowledged = { acknowledged: true };

/** PUT /{index} */
export function createIndex(store: Store, name: string, body: JsonObject): Reply {
  checkIndexName(store, name);
  const existing = store.indices.get(name);
  if (existing !== undefined) {
    const { uuid } = existing;
    const reason = `index [${name}/${uuid}] already exists`;
    throw new Refusal(400, "resource_already_exists_exception", reason, { index_uuid: uuid, index: name });
  }
  for (const key of Object.keys(body)) {
    if (!["settings", "mappings", "aliases"].includes(key)) {
      throw new Refusal(400, "parse_exception", `unknown key [${key}] for create index`);
    }
  }
  const wanted = flattenSettings(object(body["settings"]));
  checkSettings(wanted);
  const settings = new Map([
    ["index.number_of_shards", "1"],
    ["index.number_of_replicas", "1"],
  ]);
  for (const [key, value] of wanted) if (value !== null) settings.set(key, value);
  const mapping = mergeMapping(emptyMapping, object(body["mappings"]), true);
  const aliases = readAliases(store, name, object(body["aliases"]));
  const uuid = Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString("base64url");
  const words = new Map([...mapping.fields.keys()].map((field) => [field, { documents: 0, words: 0 }]));
  const fresh = {
    name,
    uuid,
    createdAt: Date.now(),
    settings,
    mapping,
    aliases,
    nextSeq: 0n,
    words,
    statements: undefined,
  };
  const index = store.db.transaction(() => insertIndex(store.db, fresh))();
  store.indices.set(name, index);
  return { acknowledged: true, shards_acknowledged: true, index: name };
}

/** DELETE /{index}: concrete names only. */
export function deleteIndices(store: Store, expression: string): Reply {
  const doomed = expression.split(",").map((name) => {
    if (name.includes("*") || name === "_all")
      throw illegalArgument("Wildcard expressions or all indices are not allowed");
    const index = store.indices.get(name);
    if (index !== undefined) return index;
    if (indicesOf(store, name).length === 0) throw indexNotFound(name);
    throw illegalArgument(
      `The provided expression [${name}] matches an alias, specify the corresponding concrete indices instead.`,
    );
  });
  for (const index of doomed) {
    const block = blockOf(index, "delete");
    if (block !== undefined) throw block;
  }
  store.db.transaction(() => {
    for (const index of doomed) dropIndex(store.db, index);
  })();
  for (const index of doomed) store.indices.delete(index.name);
  return acknowledged;
}

/** GET /{index}, GET /{index}/_settings, GET /{index}/_mapping: the wanted parts by index name. */
export function describe(
  store: Store,
  expression: string,
  parts: readonly ("aliases" | "mappings" | "settings")[],
): Reply {
  const reply: JsonObject = {};
  for (const index of resolve(store, expression)) {
    const all: JsonObject = {
      aliases: showAliases(index),
      mappings: showMapping(index.mapping),
      settings: showSettings(index),
    };
    reply[index.name] = Object.fromEntries(parts.map((part) => [part, all[part] ?? null]));
  }
  return reply;
}

/** PUT /{index}/_settings */
export function putSettings(store: Store, expression: string, body: JsonObject): Reply {
  const changes = flattenSettings(isObject(body["settings"]) ? body["settings"] : body);
  if (changes.size === 0) {
    throw new Refusal(400, "action_request_validation_exception", "Validation Failed: 1: no settings to update;");
  }
  checkSettings(changes);
  const indices = resolve(store, expression);
  for (const index of indices) checkDynamic(changes, index);
  changeIndices(store, indices, (index) => {
    const settings = new Map(index.settings);
    for (const [name, value] of changes) {
      if (value === null) settings.delete(name);
      else settings.set(name, value);
    }
    index.settings = settings;
  });
  return acknowledged;
}

/** PUT /{index}/_mapping: fields can be added, never changed. */
export function putMapping(store: Store, expression: string, body: JsonObject): Reply {
  const indices = resolve(store, expression);
  changeIndices(store, indices, (index) => {
    const before = index.mapping;
    index.mapping = mergeMapping(before, body, true);
    for (const field of index.mapping.fields.values()) {
      if (before.fields.has(field.name)) continue;
      addField(store.db, index, field);
      index.words.set(field.name, { documents: 0, words: 0 });
    }
    forgetStatements(index);
  });
  return acknowledged;
}

/** GET /_cluster/health: yellow where a replica is asked for, since there is no second node to hold it. */
export function clusterHealth(indices: readonly Index[]): Reply {
  const shards = indices.length;
  let replicas = 0;
  for (const index of indices) replicas += Number(index.settings.get("index.number_of_replicas") ?? 1);
  return {
    cluster_name: "wordloom",
    status: replicas > 0 ? "yellow" : "green",
    timed_out: false,
    number_of_nodes: 1,
    number_of_data_nodes: 1,
    active_primary_shards: shards,
    active_shards: shards,
    relocating_shards: 0,
    initializing_shards: 0,
    unassigned_shards: replicas,
    unassigned_primary_shards: 0,
    delayed_unassigned_shards: 0,
    number_of_pending_tasks: 0,
    number_of_in_flight_fetch: 0,
    task_max_waiting_in_queue_millis: 0,
    active_shards_percent_as_number: shards === 0 ? 100 : (shards / (shards + replicas)) * 100,
  };
}

function showSettings(index: Index): JsonObject {
  const shown: JsonObject = {};
  const put = (name: string, value: string) => {
    const path = name.split(".");
    const last = path.pop() ?? name;
    let level = shown;
    for (const key of path) {
      const inner = level[key];
      const next: JsonObject = isObject(inner) ? inner : {};
      level[key] = next;
      level = next;
    }
    level[last] = value;
  };
  for (const [name, value] of index.settings) put(name, value);
  put("index.provided_name", index.name);
  put("index.creation_date", String(index.createdAt));
  put("index.uuid", index.uuid);
  put("index.version.created", "9039002");
  return shown;
}

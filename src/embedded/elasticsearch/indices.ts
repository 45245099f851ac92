import { illegalArgument, indexNotFound, Refusal, unsupported } from "./errors.ts";
import { isObject, type Json, type JsonObject, type Reply } from "./json.ts";
import { emptyMapping, mergeMapping, show, showMapping } from "./mapping.ts";
import { blockOf, checkDynamic, checkSettings, flattenSettings } from "./settings.ts";
import { addField, dropIndex, forgetStatements, type Index, insertIndex, type Store, saveIndex } from "./store.ts";

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
  const aliases = new Map<string, { is_write_index?: boolean }>();
  for (const [alias, options] of Object.entries(object(body["aliases"]))) {
    checkAliasName(store, alias, name);
    aliases.set(alias, aliasOptions(object(options)));
  }
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
  change(store, indices, (index) => {
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
  change(store, indices, (index) => {
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

/** GET /_alias, /_alias/{name}, /{index}/_alias/{name}. A missing name is told beside those that were found. */
export function getAliases(
  store: Store,
  expression: string | undefined,
  names: string | undefined,
): { status: number; body: Reply } {
  const wanted = names === undefined || names === "_all" || names === "*" ? undefined : names.split(",");
  const found: JsonObject = {};
  const seen = new Set<string>();
  for (const index of expression === undefined ? store.indices.values() : resolve(store, expression)) {
    const aliases = Object.entries(showAliases(index)).filter(([alias]) => wanted?.includes(alias) ?? true);
    for (const [alias] of aliases) seen.add(alias);
    if (aliases.length > 0 || wanted === undefined) found[index.name] = { aliases: Object.fromEntries(aliases) };
  }
  const missing = (wanted ?? []).filter((name) => !seen.has(name));
  if (missing.length === 0) return { status: 200, body: found };
  const error = `${missing.length === 1 ? "alias" : "aliases"} [${missing.join(",")}] missing`;
  return { status: 404, body: { error, status: 404, ...found } };
}

/** POST /_aliases: all actions or none, readers see the one state or the other. */
export function updateAliases(store: Store, body: JsonObject): Reply {
  const actions = body["actions"];
  if (!Array.isArray(actions) || actions.length === 0) throw illegalArgument("No action specified");
  const touched = new Map<Index, Map<string, { is_write_index?: boolean }>>();
  const removed: Index[] = [];
  const results: Reply[] = [];
  let failures = 0;
  const aliasesOf = (index: Index) => {
    const aliases = touched.get(index) ?? new Map(index.aliases);
    touched.set(index, aliases);
    return aliases;
  };
  for (const action of actions) {
    const [kind = "", options] = Object.entries(object(action))[0] ?? [];
    const { index: one, indices: many, alias, aliases: aliasList, ...rest } = object(options);
    const names = many === undefined ? strings(one) : strings(many);
    if (!["add", "remove", "remove_index"].includes(kind))
      throw badAction(`[1:1] [alias_action] unknown field [${kind}]`);
    if (names.length === 0) throw badAction("One of [index] or [indices] is required", "illegal_argument_exception");
    if (kind === "remove_index") {
      for (const name of names) removed.push(concrete(store, name));
      results.push({ action: { type: kind, indices: names, aliases: [] }, status: 200 });
      continue;
    }
    const aliases = aliasList === undefined ? strings(alias) : strings(aliasList);
    if (aliases.length === 0) throw badAction("One of [alias] or [aliases] is required", "illegal_argument_exception");
    const { must_exist, ...known } = rest;
    const write = aliasOptions(kind === "add" ? known : {});
    let absent = kind === "remove";
    for (const index of names.flatMap((name) => resolve(store, name))) {
      const block = blockOf(index, "alias");
      if (block !== undefined) throw block;
      for (const name of aliases) {
        if (kind === "add") {
          const freed = removed.find((gone) => gone.name === name);
          if (freed === undefined) checkAliasName(store, name);
          aliasesOf(index).set(name, write);
        } else if (aliasesOf(index).delete(name)) {
          absent = false;
        }
      }
    }
    if (absent) {
      const error = {
        type: "aliases_not_found_exception",
        reason: `aliases [${aliases.join(",")}] missing`,
        "resource.type": "aliases",
        "resource.id": aliases.join(","),
      };
      if (must_exist === true) throw new Refusal(404, error.type, error.reason, error);
      failures += 1;
      results.push({ action: { type: kind, indices: names, aliases }, status: 404, error });
    } else {
      results.push({ action: { type: kind, indices: names, aliases }, status: 200 });
    }
  }
  if (failures === actions.length) {
    const missing = [...new Set(actions.flatMap((a) => strings(object(object(a)["remove"])["alias"])))].join(",");
    throw new Refusal(404, "aliases_not_found_exception", `aliases [${missing}] missing`, {
      "resource.type": "aliases",
      "resource.id": missing,
    });
  }
  checkWriteIndices(store, touched, removed);
  change(
    store,
    [...touched.keys()],
    (index) => {
      index.aliases = touched.get(index) ?? index.aliases;
    },
    () => {
      for (const index of removed) dropIndex(store.db, index);
    },
  );
  for (const index of removed) store.indices.delete(index.name);
  return failures === 0
    ? { acknowledged: true, errors: false }
    : { acknowledged: true, errors: true, action_results: results };
}

/** The indices that a comma-separated list of names, aliases and `*` patterns stands for. Throws when a name is unknown. */
export function resolve(store: Store, expression: string): Index[] {
  const found = new Set<Index>();
  for (const name of expression.split(",")) {
    if (name.startsWith("_") && name !== "_all") {
      const reason = `Invalid index name [${name}], must not start with '_'.`;
      throw new Refusal(400, "invalid_index_name_exception", reason, { index_uuid: "_na_", index: name });
    }
    const indices = indicesOf(store, name);
    if (indices.length === 0 && !name.includes("*") && name !== "_all") throw indexNotFound(name);
    for (const index of indices) found.add(index);
  }
  return [...found];
}

/** The one index to read from. Several at once is what this engine does not do. */
export function resolveOne(store: Store, expression: string): Index {
  const [index, second] = resolve(store, expression);
  if (index === undefined) throw indexNotFound(expression);
  if (second !== undefined) throw unsupported(`[${expression}] stands for several indices, which`);
  return index;
}

/** Where a write to this name goes. Nothing is ever made by writing to it. */
export function writeIndex(store: Store, name: string, requireAlias: boolean): Index {
  const index = store.indices.get(name);
  if (index !== undefined && !requireAlias) return index;
  const behind = index === undefined ? indicesOf(store, name) : [];
  if (behind.length === 0 && requireAlias) {
    const reason = `no such index [${name}] and [require_alias] request flag is [true] and [${name}] is not an alias`;
    throw new Refusal(404, "index_not_found_exception", reason, { index_uuid: "_na_", index: name });
  }
  const [first, second] = behind;
  if (first === undefined) {
    checkIndexName(store, name);
    throw indexNotFound(name);
  }
  const chosen = behind.find((candidate) => candidate.aliases.get(name)?.is_write_index === true);
  if (chosen !== undefined) return chosen;
  if (second === undefined && first.aliases.get(name)?.is_write_index !== false) return first;
  throw illegalArgument(
    `no write index is defined for alias [${name}]. The write index may be explicitly disabled using is_write_index=false or the alias points to multiple indices without one being designated as a write index`,
  );
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

function indicesOf(store: Store, name: string): Index[] {
  const all = [...store.indices.values()];
  if (name === "_all" || name === "*") return all;
  if (name.includes("*")) {
    const pattern = new RegExp(
      `^${name
        .split("*")
        .map((part) => part.replace(/[\\^$.|?+()[\]{}]/g, "\\$&"))
        .join(".*")}$`,
    );
    return all.filter(
      (index) => pattern.test(index.name) || [...index.aliases.keys()].some((alias) => pattern.test(alias)),
    );
  }
  return all.filter((index) => index.name === name || index.aliases.has(name));
}

function concrete(store: Store, name: string): Index {
  const index = store.indices.get(name);
  if (index === undefined) throw indexNotFound(name);
  return index;
}

/** Applies `edit` to each index and writes it, in one transaction. Memory is put back when that fails. */
function change(
  store: Store,
  indices: readonly Index[],
  edit: (index: Index) => void,
  also: () => void = () => {},
): void {
  const before = indices.map(({ settings, mapping, aliases, words }) => ({
    settings,
    mapping,
    aliases,
    words: new Map(words),
  }));
  try {
    store.db.transaction(() => {
      for (const index of indices) {
        edit(index);
        saveIndex(store.db, index);
      }
      also();
    })();
  } catch (cause) {
    for (const [i, index] of indices.entries()) Object.assign(index, before[i]);
    throw cause;
  }
}

function showAliases(index: Index): JsonObject {
  return Object.fromEntries([...index.aliases].map(([alias, options]) => [alias, { ...options }]));
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

const forbidden = [" ", '"', "*", ",", "/", "<", ">", "?", "\\", "|"];
const forbiddenShown = "[' ','\"','*',',','/','<','>','?','\\','|']";

function checkIndexName(store: Store, name: string): void {
  const fault = nameFault(name) ?? (name === name.toLowerCase() ? undefined : "must be lowercase");
  const taken = fault === undefined && !store.indices.has(name) && indicesOf(store, name).length > 0;
  const reason = fault ?? (taken ? "already exists as alias" : undefined);
  if (reason !== undefined) {
    throw new Refusal(400, "invalid_index_name_exception", `Invalid index name [${name}], ${reason}`, {
      index_uuid: "_na_",
      index: name,
    });
  }
}

function checkAliasName(store: Store, alias: string, creating?: string): void {
  const fault = nameFault(alias);
  const taken = store.indices.has(alias) || alias === creating;
  const reason = fault ?? (taken ? "an index or data stream exists with the same name as the alias" : undefined);
  if (reason !== undefined) {
    throw new Refusal(400, "invalid_alias_name_exception", `Invalid alias name [${alias}]: ${reason}`);
  }
}

function nameFault(name: string): string | undefined {
  if (forbidden.some((char) => name.includes(char)))
    return `must not contain the following characters ${forbiddenShown}`;
  if (name.includes("#")) return "must not contain '#'";
  if (name.includes(":")) return "must not contain ':'";
  if (/^[_+-]/.test(name)) return "must not start with '_', '-', or '+'";
  if (name === "." || name === "..") return "must not be '.' or '..'";
  if (Buffer.byteLength(name) > 255) return `index name is too long, (${Buffer.byteLength(name)} > 255)`;
  return undefined;
}

/** Not two write indices behind one alias. */
function checkWriteIndices(
  store: Store,
  touched: ReadonlyMap<Index, Index["aliases"]>,
  removed: readonly Index[],
): void {
  const writers = new Map<string, string>();
  for (const index of store.indices.values()) {
    if (removed.includes(index)) continue;
    for (const [alias, options] of touched.get(index) ?? index.aliases) {
      if (options.is_write_index !== true) continue;
      const other = writers.get(alias);
      if (other !== undefined) {
        const names = [other, index.name].sort().join(",");
        throw new Refusal(500, "illegal_state_exception", `alias [${alias}] has more than one write index [${names}]`);
      }
      writers.set(alias, index.name);
    }
  }
}

function aliasOptions({ is_write_index, ...rest }: JsonObject): { is_write_index?: boolean } {
  const [other] = Object.keys(rest);
  if (other !== undefined) throw unsupported(`the alias option [${other}]`);
  return typeof is_write_index === "boolean" ? { is_write_index } : {};
}

function badAction(reason: string, type = "x_content_parse_exception"): Refusal {
  return new Refusal(400, "x_content_parse_exception", "[1:1] [aliases] failed to parse field [actions]", {
    caused_by: { type, reason },
  });
}

function object(value: Json | undefined): JsonObject {
  if (value === undefined || value === null) return {};
  if (isObject(value)) return value;
  throw new Refusal(400, "parse_exception", `expected an object but found [${show(value)}]`);
}

function strings(value: Json | undefined): string[] {
  if (typeof value === "string") return [value];
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

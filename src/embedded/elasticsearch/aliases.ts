import { object } from "./body.ts";
import { illegalArgument, Refusal, unsupported } from "./errors.ts";
import type { Json, JsonObject, Reply } from "./json.ts";
import { checkAliasName, concrete, resolve } from "./names.ts";
import { blockOf } from "./settings.ts";
import { type Aliases, changeIndices, dropIndex, type Index, type Store } from "./store.ts";

/** GET /_alias, /_alias/{name}, /{index}/_alias/{name}. A missing name is reported next to those that were found. */
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
  changeIndices(
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

/** The aliases that an index of this name is created with. Throws for a name that no alias may have. */
export function readAliases(store: Store, index: string, given: JsonObject): Aliases {
  const aliases = new Map<string, { is_write_index?: boolean }>();
  for (const [alias, options] of Object.entries(given)) {
    checkAliasName(store, alias, index);
    aliases.set(alias, aliasOptions(object(options)));
  }
  return aliases;
}

export function showAliases(index: Index): JsonObject {
  return Object.fromEntries([...index.aliases].map(([alias, options]) => [alias, { ...options }]));
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

function strings(value: Json | undefined): string[] {
  if (typeof value === "string") return [value];
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

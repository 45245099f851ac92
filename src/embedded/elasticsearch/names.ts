import { illegalArgument, indexNotFound, Refusal, unsupported } from "./errors.ts";
import type { Index, Store } from "./store.ts";

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

/** The indices behind one name, alias or pattern; empty when unknown. */
export function indicesOf(store: Store, name: string): Index[] {
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

/** The index with exactly this name. Throws when there is none. */
export function concrete(store: Store, name: string): Index {
  const index = store.indices.get(name);
  if (index === undefined) throw indexNotFound(name);
  return index;
}

const forbidden = [" ", '"', "*", ",", "/", "<", ">", "?", "\\", "|"];
const forbiddenShown = "[' ','\"','*',',','/','<','>','?','\\','|']";

/** Throws for a name that no new index may have. */
export function checkIndexName(store: Store, name: string): void {
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

/** Throws for a name that no alias may have, `creating` being the index that is about to be made. */
export function checkAliasName(store: Store, alias: string, creating?: string): void {
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

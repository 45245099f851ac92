import { isObject, type Json, parseJson, RawJson, type Reply } from "./json.ts";
import { show } from "./mapping.ts";

/** Which part of `_source` is wanted: all, none, or by field name (`*` stands for any letters). */
export type SourceFilter = boolean | { readonly includes: readonly RegExp[]; readonly excludes: readonly RegExp[] };

/** Reads `_source` of a request: a boolean, names, or `{ includes, excludes }`. */
export function readSourceFilter(value: Json | undefined): SourceFilter {
  if (value === undefined || typeof value === "boolean") return value ?? true;
  if (!isObject(value)) return { includes: patterns(value), excludes: [] };
  const { includes, include, excludes, exclude } = value;
  return { includes: patterns(includes ?? include), excludes: patterns(excludes ?? exclude) };
}

/** The stored text as it is, or those of its members that the filter lets through. */
export function showSource(source: string, filter: SourceFilter): Reply {
  if (filter === false) return undefined;
  if (filter === true) return new RawJson(source);
  const { includes, excludes } = filter;
  const document = parseJson(source);
  if (!isObject(document)) return {};
  const matches = (list: readonly RegExp[], name: string) => list.some((pattern) => pattern.test(name));
  return Object.fromEntries(
    Object.entries(document).filter(
      ([name]) => (includes.length === 0 || matches(includes, name)) && !matches(excludes, name),
    ),
  );
}

function patterns(value: Json | undefined): RegExp[] {
  const names = value === undefined || value === null ? [] : Array.isArray(value) ? value : [value];
  return names.map((name) => {
    const parts = show(name)
      .split("*")
      .map((part) => part.replace(/[\\^$.|?+()[\]{}]/g, "\\$&"));
    return new RegExp(`^${parts.join(".*")}$`);
  });
}

import type { Json, Reply } from "./json.ts";
import type { PointsInTime } from "./snapshot.ts";
import { readSourceFilter, type SourceFilter } from "./source.ts";
import type { Store } from "./store.ts";

/** A request that a route takes. */
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

export function ok(body: Reply): Answer {
  return { status: 200, body };
}

/** What the parameters of a call say of `_source`. */
export function sourceFilter(query: ReadonlyMap<string, string>): SourceFilter {
  const whole = query.get("_source");
  const names = (text: string | undefined): Json => text?.split(",") ?? [];
  if (whole === "true" || whole === "false") return whole === "true";
  const includes = query.get("_source_includes") ?? whole;
  const excludes = query.get("_source_excludes");
  if (includes === undefined && excludes === undefined) return true;
  return readSourceFilter({ includes: names(includes), excludes: names(excludes) });
}

import { optionalObject, requiredObject } from "./body.ts";
import { type Answer, type Call, ok, sourceFilter } from "./call.ts";
import { illegalArgument, invalidRequest } from "./errors.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import { show } from "./mapping.ts";
import { resolveOne } from "./names.ts";
import { count, search } from "./search.ts";
import { parseSearch } from "./search-request.ts";
import { blockOf, parseTime } from "./settings.ts";
import { checkPointId, type Snapshot } from "./snapshot.ts";
import type { Index, Store } from "./store.ts";

/** GET /_search, /{index}/_search: the index as it is, or as it was at the point in time that the body names. */
export function runSearch({ store, points, path, query, body }: Call): Answer {
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

/** GET /{index}/_count */
export function runCount({ store, path, body }: Call): Answer {
  return ok(count(present(store, readable(store, path["index"] ?? "")), optionalObject(body)));
}

/** POST /{index}/_pit */
export function openPoint({ store, points, path, query, body }: Call): Answer {
  const keepAlive = query.get("keep_alive");
  if (keepAlive === undefined) throw invalidRequest("[keep_alive] is not specified");
  const [other] = Object.keys(optionalObject(body));
  if (other !== undefined) throw illegalArgument(`[open_point_in_time] unknown field [${other}]`);
  const index = readable(store, path["index"] ?? "");
  const id = points.open(index, parseTime("keep_alive", keepAlive));
  return ok({ id, _shards: { total: 1, successful: 1, skipped: 0, failed: 0 } });
}

/** DELETE /_pit */
export function closePoint({ points, body }: Call): Answer {
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

function parameterValue(text: string): Json {
  if (text === "true" || text === "false" || text === "") return text !== "false";
  return Number(text);
}

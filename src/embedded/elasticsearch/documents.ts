import { illegalArgument, invalidRequest, Refusal } from "./errors.ts";
import { isObject, type Json, type JsonObject, type Reply } from "./json.ts";
import { show } from "./mapping.ts";
import { resolveOne } from "./names.ts";
import { blockOf } from "./settings.ts";
import { readSourceFilter, type SourceFilter, showSource } from "./source.ts";
import { statementsOf } from "./statements.ts";
import type { Index, Store } from "./store.ts";

/** GET /{index}/_doc/{id} */
export function getDocument(
  store: Store,
  name: string,
  id: string,
  filter: SourceFilter,
): { status: number; body: Reply } {
  const index = resolveOne(store, name);
  const block = blockOf(index, "read");
  if (block !== undefined) throw block;
  const body = lookUp(store, index, id, filter);
  return { status: body["found"] === true ? 200 : 404, body };
}

/** POST /_mget: each document by itself, an unknown index being the fault of one. */
export function getDocuments(
  store: Store,
  defaultIndex: string | undefined,
  body: JsonObject,
  filter: SourceFilter,
): Reply {
  const { docs, ids, ...rest } = body;
  const [other] = Object.keys(rest);
  if (other !== undefined)
    throw new Refusal(400, "parsing_exception", `unexpected token [FIELD_NAME], expected [START_ARRAY] for [${other}]`);
  const asked = [...list(docs), ...list(ids).map((id): Json => ({ _id: id }))];
  if (asked.length === 0) throw invalidRequest("no documents to get");
  const wanted = asked.map((item, i) => {
    if (!isObject(item)) throw illegalArgument("docs array element should include an object");
    const { _index = defaultIndex ?? null, _id, _source, ...options } = item;
    const [option] = Object.keys(options);
    if (option !== undefined)
      throw new Refusal(400, "parse_exception", `failed to parse multi get request. unknown field [${option}]`);
    if (typeof _index !== "string") throw invalidRequest(`index is missing for doc ${i}`);
    if (_id === undefined || _id === null) throw invalidRequest(`id is missing for doc ${i}`);
    return { index: _index, id: show(_id), filter: _source === undefined ? filter : readSourceFilter(_source) };
  });
  return {
    docs: wanted.map(({ index: name, id, filter }) => {
      try {
        const index = resolveOne(store, name);
        const block = blockOf(index, "read");
        if (block !== undefined) throw block;
        return lookUp(store, index, id, filter);
      } catch (fault) {
        if (!(fault instanceof Refusal)) throw fault;
        return { _index: name, _id: id, error: { root_cause: [fault.error], ...fault.error } };
      }
    }),
  };
}

/** GET /{index}/_source/{id} */
export function getSource(store: Store, name: string, id: string, filter: SourceFilter): Reply {
  const found = lookUp(store, resolveOne(store, name), id, filter);
  const source = found["_source"];
  if (source !== undefined) return source;
  throw new Refusal(404, "resource_not_found_exception", `Document not found [${name}]/_doc/[${id}]`);
}

function lookUp(store: Store, index: Index, id: string, filter: SourceFilter): { readonly [key: string]: Reply } {
  const row = statementsOf(store.db, index).source.get(id);
  if (row === null) return { _index: index.name, _id: id, found: false };
  return {
    _index: index.name,
    _id: id,
    _version: row.version,
    _seq_no: row.seq,
    _primary_term: 1,
    found: true,
    _source: showSource(row.source, filter),
  };
}

function list(value: Json | undefined): Json[] {
  return Array.isArray(value) ? value : [];
}

import type { Seed } from "../support/batch.ts";
import { type Engine, type EngineRequest, itemError, type Reply, requestError } from "../support/scripted-engine.ts";

/** What becomes of an event whose item or request is treated so: the decision table, row by row, as the engine puts it on the wire. */
export type Expected =
  | { readonly kind: "done"; readonly result: "applied" | "noop" | "superseded" }
  | {
      readonly kind: "retry" | "fail";
      readonly reason: string;
      readonly failureClass: string;
      readonly errorType?: string;
      readonly counted?: true;
    };

type Bad = Extract<Expected, { kind: "retry" | "fail" }>;

const applied: Expected = { kind: "done", result: "applied" };
const noop: Expected = { kind: "done", result: "noop" };
const superseded: Expected = { kind: "done", result: "superseded" };
const retry = (reason: string, failureClass: string, errorType?: string): Bad => ({
  kind: "retry",
  reason,
  failureClass,
  ...(errorType === undefined ? {} : { errorType }),
});
const fail = (reason: string, errorType?: string): Bad => ({
  kind: "fail",
  reason,
  failureClass: "4xx",
  ...(errorType === undefined ? {} : { errorType }),
});

/** One item among others that the engine takes. */
export type ItemCase = {
  readonly name: string;
  readonly seed: Seed;
  readonly sentAs: "index" | "delete";
  /** The version that the engine holds before. */
  readonly held?: bigint;
  /** Undefined: the engine answers by itself. */
  readonly reply?: ReturnType<Engine["item"]>;
  readonly expected: Expected;
};

const upsert: Seed = { op: "upsert", version: 7n, row: "live" };
const remove: Seed = { op: "delete", version: 7n, row: "tombstone" };
/** Above 2^53: a JS number would round it. */
const huge = 9_007_199_254_740_993n;

const indexed = (name: string, expected: Expected, reply?: ItemCase["reply"], held?: bigint): ItemCase => ({
  name,
  seed: upsert,
  sentAs: "index",
  expected,
  ...(reply === undefined ? {} : { reply }),
  ...(held === undefined ? {} : { held }),
});
const deleted = (name: string, expected: Expected, reply?: ItemCase["reply"], held?: bigint): ItemCase => ({
  ...indexed(name, expected, reply, held),
  seed: remove,
  sentAs: "delete",
});
const answered = (status: number, type: string, expected: (errorType: string) => Expected, on = indexed): ItemCase =>
  on(
    `item ${status} ${type}${on === deleted ? " of a delete" : ""}`,
    expected(type),
    itemError(status, type, `says ${type}`),
  );

const conflict = (says: string) => itemError(409, "version_conflict_engine_exception", says);

export const itemCases: readonly ItemCase[] = [
  indexed("index of a new document, 201", applied),
  indexed("index of a known document, 200", applied, undefined, 6n),
  deleted("delete of a document, 200", applied, undefined, 6n),
  deleted("delete of an absent document, 404 not_found", noop),
  {
    ...indexed("upsert that finds a tombstone is a delete", noop),
    seed: { ...upsert, row: "tombstone" },
    sentAs: "delete",
  },
  {
    ...indexed("upsert of an entity that is gone is a delete", applied, undefined, 6n),
    seed: { ...upsert, row: "missing" },
    sentAs: "delete",
  },
  {
    ...deleted("delete of an entity that is back is an upsert", applied),
    seed: { ...remove, row: "live" },
    sentAs: "index",
  },
  {
    ...indexed("a version above 2^53 is sent digit by digit", applied, undefined, huge - 1n),
    seed: { ...upsert, version: huge },
  },
  {
    ...indexed("409 with an equal version above 2^53", superseded, undefined, huge),
    seed: { ...upsert, version: huge },
  },
  indexed("409 with an equal stored version", superseded, undefined, 7n),
  indexed("409 with a higher stored version", superseded, undefined, 8n),
  deleted("409 with a higher stored version of a delete", superseded, undefined, 8n),
  indexed(
    "409 with a lower stored version",
    fail("version_anomaly", "version_conflict_engine_exception"),
    conflict("[x]: version conflict, current version [6] is higher or equal to the one provided [7]"),
  ),
  indexed(
    "409 that names no stored version",
    fail("version_anomaly", "version_conflict_engine_exception"),
    conflict("[x]: version conflict, document already exists"),
  ),
  answered(429, "es_rejected_execution_exception", (type) => retry("es_429", "429", type)),
  answered(429, "cluster_block_exception", (type) => retry("es_429", "429", type)),
  answered(429, "circuit_breaking_exception", (type) => retry("es_429", "429", type)),
  answered(429, "es_rejected_execution_exception", (type) => retry("es_429", "429", type), deleted),
  answered(400, "document_parsing_exception", (type) => fail("es_4xx", type)),
  answered(400, "mapper_parsing_exception", (type) => fail("es_4xx", type)),
  answered(400, "strict_dynamic_mapping_exception", (type) => fail("es_4xx", type)),
  answered(400, "illegal_argument_exception", (type) => fail("es_4xx", type)),
  answered(400, "action_request_validation_exception", (type) => fail("es_4xx", type), deleted),
  answered(403, "cluster_block_exception", (type) => fail("es_4xx", type)),
  answered(403, "cluster_block_exception", (type) => fail("es_4xx", type), deleted),
  answered(413, "content_too_long_exception", (type) => fail("es_4xx", type)),
  answered(401, "security_exception", (type) => retry("es_4xx", "4xx", type)),
  answered(403, "security_exception", (type) => retry("es_4xx", "4xx", type)),
  answered(404, "index_not_found_exception", (type) => retry("es_404", "4xx", type)),
  answered(404, "index_not_found_exception", (type) => retry("es_404", "4xx", type), deleted),
  indexed("item 404 without an error of an index", retry("es_404", "4xx"), { status: 404 }),
  answered(408, "process_cluster_event_timeout_exception", (type) => retry("es_timeout", "5xx", type)),
  answered(500, "exception", (type) => retry("es_5xx", "5xx", type)),
  answered(502, "node_not_connected_exception", (type) => retry("es_5xx", "5xx", type)),
  answered(503, "unavailable_shards_exception", (type) => retry("es_5xx", "5xx", type)),
  answered(503, "unavailable_shards_exception", (type) => retry("es_5xx", "5xx", type), deleted),
  answered(504, "receive_timeout_transport_exception", (type) => retry("es_5xx", "5xx", type)),
  indexed("an item status outside of HTTP", { ...retry("es_unknown", "other"), counted: true }, { status: 302 }),
  indexed("an item without a status", retry("es_unknown", "unknown"), { status: undefined }),
  indexed("an answer that names another document", retry("es_unknown", "unknown"), { status: 201, _id: "tag:other" }),
  indexed("an answer to another action", retry("es_unknown", "unknown"), { status: 200, op: "update" }),
  indexed("applied by the primary alone is done", applied, {
    status: 201,
    _shards: { total: 2, successful: 1, failed: 1 },
  }),
];

/** One whole request that goes wrong. */
export type RequestCase = {
  readonly name: string;
  readonly expected: Bad;
  readonly reply: (request: EngineRequest, engine: Engine) => Reply;
};

const refused = (status: number, type: string, expected: (errorType: string) => Bad, headers = {}): RequestCase => ({
  name: `request ${status} ${type}`,
  expected: expected(type),
  reply: () => requestError(status, type, `says ${type}`, headers),
});
const html = { "content-type": "text/html" };
const raw = (
  name: string,
  status: number,
  body: string,
  headers: Record<string, string> | undefined,
  expected: Bad,
): RequestCase => ({
  name,
  expected,
  reply: () => ({ kind: "raw", status, body, ...(headers === undefined ? {} : { headers }) }),
});
const lied = (name: string, change: (items: readonly unknown[]) => readonly unknown[]): RequestCase => ({
  name,
  expected: retry("es_unknown", "unknown"),
  reply: (request, engine) => ({ kind: "items", items: change(engine.carryOut(request)) }),
});
const whole = (request: EngineRequest, engine: Engine) =>
  JSON.stringify({ errors: false, items: engine.carryOut(request) });
const product = { "x-elastic-product": "Elasticsearch", "content-type": "application/json" };

export const requestCases: readonly RequestCase[] = [
  { name: "a reset before the answer", expected: retry("es_connect", "5xx"), reply: () => ({ kind: "reset" }) },
  {
    name: "a reset in mid-body, carried out",
    expected: retry("es_connect", "5xx"),
    reply: (r, e) => ({ kind: "cut", body: whole(r, e) }),
  },
  { name: "no answer in time", expected: retry("es_timeout", "5xx"), reply: () => ({ kind: "hang" }) },
  {
    name: "a body that stalls, carried out",
    expected: retry("es_timeout", "5xx"),
    reply: (r, e) => ({ kind: "stall", body: whole(r, e) }),
  },
  refused(400, "media_type_header_exception", (type) => retry("es_4xx", "4xx", type)),
  refused(401, "security_exception", (type) => retry("es_4xx", "4xx", type)),
  refused(403, "security_exception", (type) => retry("es_4xx", "4xx", type)),
  raw("request 403 of a proxy", 403, "<html>", html, retry("es_4xx", "4xx")),
  refused(404, "index_not_found_exception", (type) => retry("es_404", "4xx", type)),
  refused(405, "method_not_allowed", (type) => retry("es_4xx", "4xx", type)),
  refused(408, "request_timeout", (type) => retry("es_timeout", "5xx", type)),
  refused(429, "es_rejected_execution_exception", (type) => retry("es_429", "429", type), { "retry-after": "3" }),
  refused(429, "circuit_breaking_exception", (type) => retry("es_429", "429", type)),
  refused(500, "exception", (type) => retry("es_5xx", "5xx", type)),
  raw("request 502 of a proxy", 502, "<html>", html, retry("es_5xx", "5xx")),
  refused(503, "cluster_block_exception", (type) => retry("es_5xx", "5xx", type)),
  raw("request 504 of a proxy", 504, "", html, retry("es_5xx", "5xx")),
  raw("a redirect", 302, "", { location: "/", ...product }, retry("es_unknown", "unknown")),
  raw("200 with HTML", 200, "<html>", html, retry("es_unknown", "unknown")),
  raw(
    "200 of something that is not Elasticsearch",
    200,
    '{"items":[]}',
    { "content-type": "application/json" },
    retry("es_unknown", "unknown"),
  ),
  raw("200 with invalid JSON", 200, "{nope", product, retry("es_unknown", "unknown")),
  raw("200 with an empty body", 200, "", product, retry("es_unknown", "unknown")),
  raw("200 without items", 200, '{"errors":false}', product, retry("es_unknown", "unknown")),
  {
    name: "200 with truncated JSON, carried out",
    expected: retry("es_unknown", "unknown"),
    reply: (r, e) => {
      const body = whole(r, e);
      return { kind: "raw", status: 200, body: body.slice(0, body.length / 2), headers: product };
    },
  },
  lied("fewer items than sent", (items) => items.slice(0, -1)),
  lied("more items than sent", (items) => [...items, ...items.slice(0, 1)]),
];

/** Whole requests that are refused for one document in them. */
export const poisonCases: readonly {
  readonly name: string;
  readonly reply: Reply;
  readonly errorType: string | null;
  /** What becomes of that document among others, and in a batch by itself: failed for good unless told. */
  readonly expected?: Bad;
  readonly alone?: Bad;
}[] = [
  {
    name: "request 400 for a malformed line",
    reply: requestError(400, "illegal_argument_exception", "Malformed action/metadata line [3], field [text]"),
    errorType: "illegal_argument_exception",
  },
  {
    name: "request 413 of the engine",
    reply: requestError(413, "content_too_long_exception", "entity content is too long"),
    errorType: "content_too_long_exception",
  },
  {
    name: "request 413 of a proxy",
    reply: { kind: "raw", status: 413, body: "<html>", headers: html },
    errorType: null,
  },
  {
    name: "request 400 of a firewall that reads bodies",
    reply: { kind: "raw", status: 400, body: "<html>", headers: html },
    errorType: null,
    expected: { ...retry("es_4xx", "4xx"), counted: true },
    alone: retry("es_4xx", "4xx"),
  },
];

import { gunzipSync } from "node:zlib";
import type { Answer } from "./call.ts";
import { errorBody, Refusal } from "./errors.ts";
import { type Reply, stringify } from "./json.ts";
import { type Route, routes } from "./routes.ts";
import type { PointsInTime } from "./snapshot.ts";
import type { Store } from "./store.ts";

/** Elasticsearch's http.max_content_length, in bytes; it holds for what is unpacked too. */
const maxBodyBytes = 100 * 1024 * 1024;

/**
 * The Elasticsearch HTTP API over a store, on loopback only. A document can be found as soon as its write is answered:
 * every commit counts as a refresh, which real Elasticsearch may do at any moment and does every second by default.
 * Throws (EADDRINUSE) when the port is taken; port 0 takes a free one.
 */
export function serve(store: Store, points: PointsInTime, port: number): Bun.Server<undefined> {
  return Bun.serve({
    hostname: "127.0.0.1",
    port,
    // Set explicitly: with `development: false` Bun silently shares the port with any other listener by default.
    reusePort: false,
    // A client that keeps its connection must not find it closed when it sends the next request.
    idleTimeout: 0,
    maxRequestBodySize: maxBodyBytes,
    fetch: (request) => respond(store, points, request),
  });
}

async function respond(store: Store, points: PointsInTime, request: Request): Promise<Response> {
  const accept = request.headers.get("accept") ?? "";
  let answer: Answer;
  let mediaType = "application/json";
  try {
    mediaType = replyType(accept);
    answer = await dispatch(store, points, request);
  } catch (fault) {
    if (fault instanceof Refusal) answer = { status: fault.status, body: errorBody(fault) };
    else if (fault instanceof PlainRefusal) answer = { status: fault.status, body: fault.body };
    else answer = { status: 500, body: errorBody(new Refusal(500, "exception", String(fault))) };
  }
  const headers = { "X-elastic-product": "Elasticsearch", "content-type": mediaType };
  return new Response(answer.status === 413 ? null : stringify(answer.body), { status: answer.status, headers });
}

async function dispatch(store: Store, points: PointsInTime, request: Request): Promise<Answer> {
  const url = new URL(request.url);
  const pathname = url.pathname.length > 1 ? url.pathname.replace(/\/$/, "") : url.pathname;
  const { route, path } = findRoute(request.method, pathname);
  const query = new Map(url.searchParams);
  const stranger = [...query.keys()].find((name) => !route.parameters.includes(name) && !everywhere.has(name));
  if (stranger !== undefined) {
    const reason = `request [${url.pathname}] contains unrecognized parameter: [${stranger}]`;
    throw new Refusal(400, "illegal_argument_exception", reason);
  }
  const body = await readBody(request);
  return route.run({ store, points, path, query, body });
}

const everywhere = new Set(["pretty", "human", "error_trace"]);

/** An error that the HTTP layer gives, before any action: a sentence in place of an error object. */
class PlainRefusal extends Error {
  readonly status: number;
  readonly body: Reply;

  constructor(status: number, body: Reply) {
    super();
    this.status = status;
    this.body = body;
  }
}

const compiled = routes.map((route) => ({
  route,
  expression: new RegExp(`^${route.pattern.replace(/\{(\w+)\}/g, "(?<$1>[^/]+)")}$`),
}));

const methodOrder = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "CONNECT"];

function findRoute(method: string, pathname: string): { route: Route; path: Record<string, string> } {
  const allowed = new Set<string>();
  let found: { route: Route; path: Record<string, string> } | undefined;
  // A name such as _bulk is never an index: its own path decides, whatever the method.
  const own = compiled.filter(({ route, expression }) => !route.pattern.startsWith("/{") && expression.test(pathname));
  for (const { route, expression } of own.length > 0 ? own : compiled) {
    const fit = expression.exec(pathname);
    if (fit === null) continue;
    const path: Record<string, string> = {};
    for (const [part, value] of Object.entries(fit.groups ?? {})) path[part] = decodePart(value);
    for (const one of route.methods) allowed.add(one);
    if (found === undefined && route.methods.includes(method)) found = { route, path };
  }
  if (found !== undefined) return found;
  if (allowed.size === 0) {
    throw new PlainRefusal(400, { error: `no handler found for uri [${pathname}] and method [${method}]` });
  }
  const list = [...allowed].sort((a, b) => methodOrder.indexOf(a) - methodOrder.indexOf(b)).join(", ");
  const error = `Incorrect HTTP method for uri [${pathname}] and method [${method}], allowed: [${list}]`;
  throw new PlainRefusal(405, { error, status: 405 });
}

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new Refusal(400, "illegal_argument_exception", `unable to decode [${part}]`);
  }
}

async function readBody(request: Request): Promise<string> {
  const packed = new Uint8Array(await request.arrayBuffer());
  if (packed.length === 0) return "";
  const type = (request.headers.get("content-type") ?? "").toLowerCase();
  if (!/^application\/(json|x-ndjson|vnd\.elasticsearch\+(json|x-ndjson))\s*(;|$)/.test(type)) {
    const error = type === "" ? "Content-Type header is missing" : `Content-Type header [${type}] is not supported`;
    throw new PlainRefusal(406, { error, status: 406 });
  }
  checkCompatibility("Content-Type", type);
  return new TextDecoder().decode(unpack(packed, request.headers.get("content-encoding")));
}

function unpack(body: Uint8Array, encoding: string | null): Uint8Array {
  if (encoding === null || encoding === "identity") return body;
  if (encoding !== "gzip") {
    throw new Refusal(400, "illegal_argument_exception", `content encoding [${encoding}] is not supported`);
  }
  try {
    return gunzipSync(body, { maxOutputLength: maxBodyBytes });
  } catch (cause) {
    if (cause instanceof RangeError) throw new PlainRefusal(413, null);
    throw new Refusal(400, "parse_exception", "the body is not valid gzip");
  }
}

/** The reply's media type: the very one that was asked for, since the client compares it. */
function replyType(accept: string): string {
  const [first = ""] = accept.toLowerCase().split(",");
  const wanted = first.replaceAll(" ", "");
  if (wanted === "" || wanted === "*/*" || wanted.startsWith("application/json")) return "application/json";
  if (wanted.startsWith("application/vnd.elasticsearch+json")) {
    checkCompatibility("Accept", wanted);
    return wanted;
  }
  throw new PlainRefusal(406, { error: `Accept header [${accept}] is not supported`, status: 406 });
}

function checkCompatibility(header: string, type: string): void {
  const [, asked] = /compatible-with=(\d+)/.exec(type) ?? [];
  if (asked === undefined || asked === "9" || asked === "8") return;
  throw new Refusal(400, "media_type_header_exception", "Invalid media-type value on headers [Content-Type, Accept]", {
    caused_by: {
      type: "status_exception",
      reason: `${header} version must be either version 9 or 8, but found ${asked}. ${header}=${type}`,
    },
  });
}

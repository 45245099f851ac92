import { script, style } from "./page/assets.ts";
import { notFoundPage } from "./page/not-found-page.ts";
import { searchPage } from "./page/search-page.ts";
import { tracePage } from "./page/trace-page.ts";
import { BadParameter, ImpossibleQuery } from "./parameters.ts";
import * as v1 from "./query-v1.ts";
import * as v3 from "./query-v3.ts";
import { maxBodyBytes, receiveTraces } from "./receive.ts";
import type { Store } from "./store.ts";

/**
 * OTLP/HTTP, Jaeger's query API and the pages over one store. The same on every port, so that whoever knows one of Jaeger's two finds all.
 * Throws (EADDRINUSE) when the port is taken; port 0 takes a free one.
 */
export function serve(store: Store, hostname: string, port: number): Bun.Server<undefined> {
  return Bun.serve({
    hostname,
    port,
    // Set explicitly: with `development: false` Bun silently shares the port with any other listener by default.
    reusePort: false,
    // An exporter that keeps its connection must not find it closed when it sends the next spans.
    idleTimeout: 0,
    // What is larger than the receiver's own limit is still read, so that it can answer for itself.
    maxRequestBodySize: 4 * maxBodyBytes,
    fetch: (request) => respond(store, request),
    error: () => new Response("internal error\n", { status: 500 }),
  });
}

/** Jaeger's search as curl sends it without -G: the parameters are the body of a form. */
const isForm = (request: Request, pathname: string) =>
  request.method === "POST" &&
  pathname === "/api/traces" &&
  (request.headers.get("content-type") ?? "").startsWith("application/x-www-form-urlencoded");

function respond(store: Store, request: Request): Response | Promise<Response> {
  const { pathname, searchParams } = new URL(request.url);
  if (pathname === "/v1/traces") return receiveTraces(store, request);
  // Metrics and logs are not accepted here.
  if (pathname.startsWith("/v1/")) return notFound();
  if (isForm(request, pathname))
    return request
      .text()
      .then((form) => respondV1(store, pathname, new URLSearchParams([...searchParams, ...new URLSearchParams(form)])));
  if (request.method !== "GET" && request.method !== "HEAD")
    return new Response("405 method not allowed\n", { status: 405, headers: { allow: "GET, HEAD" } });
  if (pathname.startsWith("/api/v3/")) return respondV3(store, pathname, searchParams);
  if (pathname.startsWith("/api/")) return respondV1(store, pathname, searchParams);
  return respondPage(store, pathname, searchParams);
}

function respondV1(store: Store, pathname: string, parameters: URLSearchParams): Response {
  const fault = (code: number, msg: string) => json(code, v1.envelope(null, 0, [{ code, msg }]));
  try {
    if (pathname === "/api/services") return json(200, v1.services(store));
    if (pathname === "/api/operations") return json(200, v1.operations(store, parameters));
    if (pathname === "/api/traces") return json(200, v1.search(store, parameters, Date.now() * 1000));
    const service = partOf(pathname, /^\/api\/services\/([^/]+)\/operations$/);
    if (service !== undefined) return json(200, v1.operationNames(store, service));
    const id = partOf(pathname, /^\/api\/traces\/([^/]+)$/);
    if (id === undefined) return notFound();
    const trace = v1.trace(store, id, parameters);
    return trace === undefined ? fault(404, "trace not found") : json(200, trace);
  } catch (cause) {
    return refusal(cause, fault);
  }
}

function respondV3(store: Store, pathname: string, parameters: URLSearchParams): Response {
  const fault = (httpCode: number, message: string) => json(httpCode, JSON.stringify({ error: { httpCode, message } }));
  const found = (body: string | undefined) => (body === undefined ? fault(404, "No traces found") : json(200, body));
  try {
    if (pathname === "/api/v3/services") return json(200, v3.services(store));
    if (pathname === "/api/v3/operations") return json(200, v3.operations(store, parameters));
    if (pathname === "/api/v3/traces") return found(v3.search(store, parameters));
    const id = partOf(pathname, /^\/api\/v3\/traces\/([^/]+)$/);
    return id === undefined ? notFound() : found(v3.trace(store, id, parameters));
  } catch (cause) {
    return refusal(cause, fault);
  }
}

function refusal(cause: unknown, fault: (status: number, message: string) => Response): Response {
  if (cause instanceof BadParameter) return fault(400, cause.message);
  if (cause instanceof ImpossibleQuery) return fault(500, cause.message);
  throw cause;
}

function respondPage(store: Store, pathname: string, parameters: URLSearchParams): Response {
  if (pathname === "/" || pathname === "/search") {
    const wanted = parameters.get("traceID")?.trim() ?? "";
    if (/^[0-9a-f]{1,32}$/i.test(wanted)) return Response.redirect(`/trace/${wanted}`, 303);
    return page(200, searchPage(store, parameters, Date.now() * 1000));
  }
  if (pathname === "/assets/style.css") return asset(style, "text/css; charset=utf-8");
  if (pathname === "/assets/page.js") return asset(script, "text/javascript; charset=utf-8");
  const id = partOf(pathname, /^\/trace\/([^/]+)$/);
  const shown = id === undefined ? undefined : tracePage(store, id, parameters);
  return shown === undefined ? page(404, notFoundPage(id)) : page(200, shown);
}

/** The decoded group of the pattern; undefined where it does not fit. */
function partOf(pathname: string, pattern: RegExp): string | undefined {
  const [, part] = pattern.exec(pathname) ?? [];
  try {
    return part === undefined ? undefined : decodeURIComponent(part);
  } catch {
    return undefined;
  }
}

const json = (status: number, body: string) =>
  new Response(body, { status, headers: { "content-type": "application/json" } });

const notFound = () => new Response("404 page not found\n", { status: 404 });

/** What a span says comes from anywhere: no script and no style but our own, from nowhere else. */
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const page = (status: number, body: string) =>
  new Response(body, {
    status,
    headers: {
      "content-type": "text/html; charset=utf-8",
      "content-security-policy": policy,
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "cache-control": "no-store",
    },
  });

const asset = (body: string, type: string) =>
  new Response(body, {
    headers: { "content-type": type, "x-content-type-options": "nosniff", "cache-control": "no-cache" },
  });

import { type TSchema, TypeGuard } from "@sinclair/typebox";
import { Elysia } from "elysia";
import { causeCodeOf, type ProblemCode, problems, WordloomError } from "../errors.ts";
import type { RequestSignals } from "../telemetry/request-signals.ts";
import { blockRoutes } from "./blocks.ts";
import { bookRoutes } from "./books.ts";
import { bookshelfRoutes } from "./bookshelves.ts";
import { chronicleRoutes } from "./chronicle.ts";
import type { Desk } from "./desk.ts";
import { healthRoutes, isHealthPath, type Readiness } from "./health.ts";
import { libraryRoutes } from "./libraries.ts";
import { type Problem, problemOf, problemResponse, retriable } from "./problem.ts";
import { type SearchBackend, searchRoutes } from "./search.ts";
import { tagRoutes } from "./tags.ts";

export type ServerParts = Omit<Desk, "signalsOf"> & {
  readonly search: SearchBackend;
  /** Answers GET /metrics. */
  readonly metrics: (request: Request) => Response | Promise<Response>;
  readonly readiness: Readiness;
};

/** One route, as it appears in the documentation. */
export type Route = {
  readonly method: string;
  readonly path: string;
  readonly summary: string;
  /** The schemas of what it takes. */
  readonly query: TSchema | undefined;
  readonly body: TSchema | undefined;
};

export type ApiServer = {
  readonly routes: readonly Route[];
  /** Starts to listen; port 0 takes any free one. Throws EADDRINUSE (in `code`) when the port is taken. */
  readonly listen: (host: string, port: number) => { readonly url: string; readonly port: number };
  /** Answers one request, without a socket. */
  readonly handle: (request: Request) => Promise<Response>;
  /** Refuses new requests, waits up to `graceMs` for those in flight, then drops them. */
  readonly stop: (graceMs: number) => Promise<void>;
};

/** One request on its way through the server. */
type Exchange = {
  readonly signals: RequestSignals;
  route: string | null;
  problem: ProblemCode | undefined;
  /** The code of what the problem comes from. */
  cause: string | undefined;
};

function refuse(exchange: Exchange, problem: Problem): Response {
  exchange.problem = problem.code;
  return problemResponse(problem, exchange.signals.correlationId);
}

type Measured = { readonly response: Response; readonly bytes: number };

/** The same answer, with the length of its body. */
async function measure(answer: Response): Promise<Measured> {
  const body = await answer.bytes();
  return { response: new Response(body.length === 0 ? null : body, answer), bytes: body.length };
}

/** HTTP/1.0 names no host, and what names one may be none: here the path counts alone. */
function addressed(request: Request): Request {
  if (URL.canParse(request.url)) return request;
  const path = request.url.replace(/^[a-z]+:\/\/[^/?]*/i, "");
  return new Request(`http://localhost${path.startsWith("/") ? path : "/"}`, request);
}

/** The HTTP API. Every answer but 2xx is problem+json (RFC 9457) and holds nothing of the request's input. */
export function createServer({ metrics, readiness, search, ...parts }: ServerParts): ApiServer {
  const exchanges = new WeakMap<Request, Exchange>();
  const exchangeOf = (request: Request): Exchange => {
    const exchange = exchanges.get(request);
    if (!exchange) throw new Error("the request is not being answered");
    return exchange;
  };
  const desk: Desk = { ...parts, signalsOf: (request) => exchangeOf(request).signals };

  const app = new Elysia({
    // Refuse fields that are not known, where Elysia would drop them.
    normalize: false,
    // Read the path right also when the host's name is shorter than four letters.
    handler: { standardHostname: false },
  });
  app.onBeforeHandle(({ request, route }) => {
    exchangeOf(request).route = route;
  });
  app.onError(({ error, request, route, path }) => {
    const exchange = exchangeOf(request);
    const problem = problemOf(error);
    if (problem.code === "ROUTE_NOT_FOUND") {
      const allow = methodsAt(path);
      if (allow.length > 0)
        return refuse(exchange, {
          code: "METHOD_NOT_ALLOWED",
          detail: problems.METHOD_NOT_ALLOWED[1],
          headers: { allow: allow.join(", ") },
        });
    } else exchange.route = route;
    if (problem.code === "VALIDATION_ERROR")
      exchange.signals.refused(exchange.route, problems.VALIDATION_ERROR[0], problem.faults ?? []);
    exchange.cause = causeCodeOf(error instanceof WordloomError ? error.cause : error);
    if (problem.code === "INTERNAL") desk.signals.failed(exchange.signals.correlationId, error);
    return refuse(exchange, problem);
  });
  healthRoutes(app, desk.db, readiness, metrics);
  libraryRoutes(app, desk);
  bookshelfRoutes(app, desk);
  bookRoutes(app, desk);
  blockRoutes(app, desk);
  tagRoutes(app, desk);
  chronicleRoutes(app, desk);
  searchRoutes(app, desk, search);

  const routes = app.routes.map(({ method, path }) => ({ method, segments: path.split("/") }));
  /** What the table of routes answers at a path, for Allow. */
  function methodsAt(path: string): string[] {
    const segments = path.replace(/(.)\/$/, "$1").split("/");
    const methods = routes
      .filter(
        (r) =>
          r.segments.length === segments.length && r.segments.every((s, i) => s.startsWith(":") || s === segments[i]),
      )
      .map((r) => r.method);
    return methods.includes("GET") ? ["HEAD", ...methods].toSorted() : methods.toSorted();
  }

  async function answer(received: Request): Promise<Response> {
    const request = addressed(received);
    const signals = desk.signals.request(request);
    const exchange: Exchange = { signals, route: null, problem: undefined, cause: undefined };
    return await signals.run(async () => {
      const { response, bytes } = await respond(request, exchange);
      response.headers.set("x-request-id", signals.correlationId);
      response.headers.set("cache-control", "no-store");
      response.headers.set("x-content-type-options", "nosniff");
      if (readiness.draining) response.headers.set("connection", "close");
      const { route, problem, cause } = exchange;
      signals.end(route, response.status, request.method === "HEAD" ? 0 : bytes, problem && { code: problem, cause });
      return response;
    });
  }

  async function respond(request: Request, exchange: Exchange): Promise<Measured> {
    if (readiness.draining && !isHealthPath(new URL(request.url).pathname))
      return await measure(refuse(exchange, retriable("DRAINING")));
    // HEAD is GET without the body, which Bun leaves out by itself.
    const routed = request.method === "HEAD" ? new Request(request, { method: "GET" }) : request;
    exchanges.set(routed, exchange);
    try {
      return await measure(await app.handle(routed));
    } catch (error) {
      desk.signals.failed(exchange.signals.correlationId, error);
      return await measure(refuse(exchange, problemOf(error)));
    }
  }

  const schema = (value: unknown) => (TypeGuard.IsSchema(value) ? value : undefined);
  let server: Bun.Server<undefined> | undefined;
  return {
    routes: app.routes.map(({ method, path, hooks: { detail, query, body } }) => ({
      method,
      path,
      summary: detail?.summary ?? "",
      query: schema(query),
      body: schema(body),
    })),
    handle: answer,
    listen: (host, port) => {
      server = Bun.serve({
        hostname: host,
        port,
        fetch: answer,
        // Bun would print the request on stderr, and answer in plain text.
        error: (error) => {
          const id = crypto.randomUUID();
          desk.signals.failed(id, error);
          return problemResponse(problemOf(error), id);
        },
        // The routes count for themselves: Bun would answer 413 without a problem in it.
        maxRequestBodySize: Number.MAX_SAFE_INTEGER,
        // The longest that Bun knows. Its 10 s would cut off whoever waits for several statements or a lock, while what was asked for is done all the same.
        idleTimeout: 255,
        development: false,
        // Because of `development: false` Bun would share a port that is taken, and say nothing.
        reusePort: false,
      });
      return { url: server.url.origin, port: server.port ?? port };
    },
    stop: async (graceMs) => {
      readiness.draining = true;
      if (!server) return;
      const late = Promise.withResolvers<"late">();
      const timer = setTimeout(() => late.resolve("late"), graceMs);
      const outcome = await Promise.race([server.stop(false), late.promise]);
      clearTimeout(timer);
      if (outcome === "late") await server.stop(true);
    },
  };
}

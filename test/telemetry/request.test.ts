import { afterAll, beforeEach, expect, test } from "bun:test";
import { Client, HttpConnection } from "@elastic/elasticsearch";
import { context, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import type { ReadableSpan } from "@opentelemetry/sdk-trace-base";
import { sql } from "drizzle-orm";
import { readConfig } from "../../src/config.ts";
import { openWakeUps } from "../../src/outbox/wake.ts";
import { statementSignals } from "../../src/telemetry/database-signals.ts";
import { obsSchema } from "../../src/telemetry/keys.ts";
import { openTracing } from "../../src/telemetry/tracing.ts";
import { openApi } from "../support/api.ts";
import { testDatabase } from "../support/postgres.ts";
import { connect, startScriptedEngine } from "../support/scripted-engine.ts";
import { spanMemory } from "../support/telemetry.ts";
import { until } from "../support/until.ts";

/** What one request leaves in a trace: its server span, and below it a client span for each statement that it sent to Postgres. */

const testbed = await testDatabase();
const config = readConfig({ WORDLOOM_ENV: "test", WORDLOOM_TRACING_ENABLED: "1" });
const memory = spanMemory();
const tracing = openTracing(config, "api", "test", () => undefined, memory);
const database = testbed.open({ onStatement: statementSignals(tracing, testbed.address), statementTimeoutMs: 2000 });
const engine = await startScriptedEngine();
const client = await connect(engine.url);
const api = openApi(database.db, { tracing, search: { client, index: "scripted" } });
afterAll(async () => {
  await database.close();
  await client.close();
  await engine.close();
  await tracing.close();
});
beforeEach(() => {
  memory.spans.length = 0;
});

const sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
const canary = "zebra7canary";

/** One request with all of its spans. */
async function traced(method: string, path: string, body?: unknown, flags = "01") {
  const from = memory.spans.length;
  const { status, body: said } = await api.send(method, path, body, { traceparent: `${sent}-${flags}` });
  await until("its spans are out", () => flags === "00" || memory.spans.slice(from).some(isServer));
  const spans = memory.spans.slice(from);
  const server = spans.find(isServer);
  return { status, body: said, server, below: spans.filter((span) => span !== server) };
}
const isServer = (span: ReadableSpan) => span.kind === SpanKind.SERVER;
const names = (spans: readonly ReadableSpan[]) => spans.map(({ name }) => name);

const recorded =
  "INSERT search_index INSERT chronicle_events INSERT search_outbox_events_live INSERT chronicle_outbox_events_live";

const tagWritten = `INSERT tags ${recorded}`;

test("a write of one statement is one span below its server span", async () => {
  const { status, below } = await traced("POST", "/api/v1/tags", { name: "at once" });
  expect([status, ...names(below)]).toEqual([201, tagWritten]);
});

test("writes that share a statement have it in the trace of each, below its own server span", async () => {
  const crowd = Array.from({ length: 20 }, (_, i) => (i + 1).toString(16).padStart(32, "0"));
  let statements = 0;
  const counted = testbed.open({
    onStatement: (text) => {
      const ended = told?.(text);
      if (ended) statements += 1;
      return ended;
    },
  });
  const told = statementSignals(tracing, testbed.address);
  const sharing = openApi(counted.db, { tracing });
  const answers = await Promise.all(
    crowd.map((traceId, i) =>
      sharing.send(
        "POST",
        "/api/v1/tags",
        { name: `crowd ${i}` },
        { traceparent: `00-${traceId}-b7ad6b7169203331-01` },
      ),
    ),
  );
  expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(201));
  await until("all spans are out", () => memory.spans.length === 40);
  for (const traceId of crowd) {
    const own = memory.spans.filter((span) => span.spanContext().traceId === traceId);
    const server = own.find(isServer);
    const statement = own.find((span) => span !== server);
    expect([own.length, statement?.name]).toEqual([2, tagWritten]);
    expect(statement?.parentSpanContext?.spanId).toBe(server?.spanContext().spanId);
  }
  const sent = await counted.db.execute(sql`select distinct xmin::text from tags where name like 'crowd %'`);
  expect(statements).toBe(20);
  expect(sent.length).toBeLessThan(20);
  await counted.close();
});

test("a write is one server span with BEGIN, each statement and COMMIT below it, in the caller's trace", async () => {
  const tag = await traced("POST", "/api/v1/tags", { name: "traced", color: "#FFFFFF" });
  const { status, server, below } = await traced("PATCH", `/api/v1/tags/${tag.body.id}`, { color: "#000000" });
  expect(status).toBe(200);
  expect(names(below)).toEqual(["BEGIN", "UPDATE tags", recorded, "COMMIT"]);
  expect(server?.spanContext().traceId).toBe(sent.slice(3, 35));
  for (const span of below) {
    expect(span.parentSpanContext?.spanId).toBe(server?.spanContext().spanId);
    expect(span.spanContext().traceId).toBe(sent.slice(3, 35));
    expect([span.kind, span.status.code]).toEqual([SpanKind.CLIENT, SpanStatusCode.UNSET]);
    const { host, port, socketPath, database: name } = testbed.address;
    expect(span.attributes).toEqual({
      "db.system.name": "postgresql",
      "db.namespace": `${name}|public`,
      "db.query.summary": span.name,
      "db.query.text": expect.any(String),
      "server.address": socketPath ?? host,
      ...(socketPath === undefined && port !== 5432 ? { "server.port": port } : {}),
      "wordloom.obs_schema": obsSchema,
    });
  }
});

test("a server span has what OpenTelemetry asks of one, and of the address never the query", async () => {
  const id = crypto.randomUUID();
  const { server } = await traced("GET", `/api/v1/tags/${id}?cid=abc&q=${canary}`);
  expect(server?.name).toBe("GET /api/v1/tags/:id");
  expect(server?.attributes).toEqual({
    "http.request.method": "GET",
    "http.response.status_code": expect.any(Number),
    "http.route": "/api/v1/tags/:id",
    "url.path": `/api/v1/tags/${id}`,
    "url.scheme": "http",
    "server.address": "localhost",
    "server.port": 80,
    correlation_id: "abc",
    "wordloom.correlation_id": "abc",
    "wordloom.obs_schema": obsSchema,
  });
  expect(server?.status.code).toBe(SpanStatusCode.UNSET);
});

test("a method that nobody knows names neither span nor metric", async () => {
  const { server } = await traced("PURGE", "/api/v1/tags");
  expect(server?.name).toBe("HTTP");
  expect(server?.attributes).toMatchObject({
    "http.request.method": "_OTHER",
    "http.request.method_original": "PURGE",
  });
  expect(await api.metrics()).not.toContain("PURGE");
});

test("a statement that Postgres refuses is an ERROR span with its SQLSTATE, and the transaction ends in a ROLLBACK; the refused request is no error of the server", async () => {
  await traced("POST", "/api/v1/tags", { name: canary });
  const { body: tag } = await traced("POST", "/api/v1/tags", { name: "another" });
  const { status, server, below } = await traced("PATCH", `/api/v1/tags/${tag.id}`, { name: canary });
  expect(status).toBe(409);
  expect(server?.status.code).toBe(SpanStatusCode.UNSET);
  expect(server?.attributes["error.type"]).toBeUndefined();
  const refused = below.find(({ name }) => name === "UPDATE tags");
  expect(refused?.status).toEqual({ code: SpanStatusCode.ERROR });
  expect(refused?.attributes).toMatchObject({ "error.type": "23505", "db.response.status_code": "23505" });
  const end = below.find(({ name }) => name === "ROLLBACK");
  expect([end?.status.code, end?.attributes["error.type"]]).toEqual([SpanStatusCode.UNSET, undefined]);
  expect(names(below)).not.toContain("COMMIT");
});

test("a request that fails is an ERROR span whose error.type is the problem's code", async () => {
  const locker = testbed.open({ max: 1 });
  await locker.db.transaction(async (tx) => {
    await tx.execute(sql`lock table tags in access exclusive mode`);
    const { status, server, below } = await traced("GET", `/api/v1/tags/${crypto.randomUUID()}`);
    expect(status).toBe(503);
    expect(server?.status).toEqual({ code: SpanStatusCode.ERROR });
    expect(server?.attributes["error.type"]).toBe("DATABASE_BUSY");
    expect(below.map((span) => [span.name, span.attributes["db.response.status_code"]])).toEqual([
      ["SELECT tags", "57014"],
    ]);
  });
  await locker.close();
});

test("a search is a client span of the engine below its server span, and an ERROR span when the engine is away", async () => {
  const answers = [Response.json({ hits: { total: 0, hits: [] } }), Response.json({}, { status: 503 })];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: () => {
      const answer = answers.shift() ?? new Response();
      answer.headers.set("x-elastic-product", "Elasticsearch");
      return answer;
    },
  });
  const searching = new Client({ node: server.url.href, Connection: HttpConnection, maxRetries: 0 });
  const { send } = openApi(database.db, { tracing, search: { client: searching, index: "wordloom-test" } });
  const headers = { traceparent: `${sent}-01` };
  expect((await send("GET", "/api/v1/search/tags?q=loom", undefined, headers)).status).toBe(200);
  expect((await send("GET", "/api/v1/search/tags?q=loom", undefined, headers)).status).toBe(503);
  await until("all spans are out", () => memory.spans.filter(isServer).length === 2);
  const told = memory.spans.filter(({ name }) => name === "search wordloom-test");
  const servers = memory.spans.filter(isServer);
  expect(told.map((s) => s.parentSpanContext?.spanId)).toEqual(servers.map((s) => s.spanContext().spanId));
  const common = {
    "db.system.name": "elasticsearch",
    "db.operation.name": "search",
    "db.collection.name": "wordloom-test",
    "wordloom.obs_schema": obsSchema,
  };
  expect(told.map(({ kind, status, attributes }) => [kind, status.code, attributes])).toEqual([
    [SpanKind.CLIENT, SpanStatusCode.UNSET, common],
    [SpanKind.CLIENT, SpanStatusCode.ERROR, { ...common, "error.type": "SEARCH_UNAVAILABLE" }],
  ]);
  await searching.close();
  await server.stop(true);
});

test("a connection that is lost is an ERROR span with the driver's code, which is no SQLSTATE", async () => {
  const killer = testbed.open({ max: 1 });
  const lock = Promise.withResolvers<void>();
  const locked = Promise.withResolvers<void>();
  const holding = killer.db.transaction(async (tx) => {
    await tx.execute(sql`lock table tags in access exclusive mode`);
    locked.resolve();
    await lock.promise;
  });
  await locked.promise;
  const asked = traced("POST", "/api/v1/tags", { name: "lost" });
  const other = testbed.open({ max: 1 });
  await until("it waits for the lock", async () => {
    const rows = await other.db.execute(
      sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
    );
    return rows.length > 0;
  });
  lock.resolve();
  const { status, server, below } = await asked;
  await holding;
  await Promise.all([killer.close(), other.close()]);
  expect([status, server?.attributes["error.type"]]).toEqual([503, "DATABASE_UNAVAILABLE"]);
  const lost = below.filter(({ status: { code } }) => code === SpanStatusCode.ERROR);
  expect(lost.map(({ name }) => name)).toContain(tagWritten);
  for (const span of lost) expect(span.attributes["error.type"]).toMatch(/^(57P01|CONNECTION_CLOSED)$/);
  for (const { attributes } of lost)
    expect([undefined, "57P01"]).toContain(attributes["db.response.status_code"] as string);
});

test("of a request that is not sampled nobody is told", async () => {
  const { status, below } = await traced("POST", "/api/v1/tags", { name: "unsampled" }, "00");
  expect(status).toBe(201);
  await traced("GET", "/livez");
  expect([below, names(memory.spans)]).toEqual([[], ["GET /livez"]]);
});

test("what is sent outside of requests, and the NOTIFY that speaks for many, are part of no request", async () => {
  await database.db.execute(sql`select 1`);
  const wakeUps = openWakeUps(database);
  const worker = testbed.open();
  let heard = 0;
  const unlisten = await worker.listen("wordloom_outbox", () => {
    heard += 1;
  });
  const before = heard;
  const span = tracing.tracer.startSpan("request");
  context.with(trace.setSpan(context.active(), span), () => wakeUps.announce());
  await until("the NOTIFY is heard", () => heard > before);
  span.end();
  await wakeUps.close();
  await unlisten();
  await worker.close();
  await until("the span is out", () => names(memory.spans).includes("request"));
  expect(names(memory.spans)).toEqual(["request"]);
});

test("no value of a request is in any span, whatever is written, read or searched for", async () => {
  let asked = 0;
  const send = (method: string, path: string, body?: unknown) => {
    asked += 1;
    return api.send(method, path, body, { traceparent: `${sent}-01` });
  };
  const create = async (kind: string, body: Record<string, unknown>) => {
    const made = await send("POST", `/api/v1/${kind}`, body);
    expect([kind, made.status, made.text]).toEqual([kind, 201, expect.stringContaining(canary)]);
    return made.body.id as string;
  };
  const library = await create("libraries", { name: canary, description: canary });
  const shelf = await create("bookshelves", { library_id: library, name: canary });
  const book = await create("books", { bookshelf_id: shelf, title: canary, summary: canary });
  const block = await create("blocks", { book_id: book, block_type: "text", content: canary });
  const tag = await create("tags", { name: `${canary} 2`, description: canary });
  await send("PATCH", `/api/v1/tags/${tag}`, { description: `${canary} again` });
  const paths = [`tags/${tag}`, `blocks/${block}`, `books/${book}`, `bookshelves/${shelf}`, `libraries/${library}`];
  for (const path of paths) expect((await send("GET", `/api/v1/${path}`)).text).toContain(canary);
  for (const path of paths) expect((await send("DELETE", `/api/v1/${path}`)).status).toBe(204);
  for (const path of ["search", "search/blocks", "search/tags"])
    await send("GET", `/api/v1/${path}?q=${canary}&cid=c1`);
  await send("POST", "/api/v1/tags", `{"name":"${canary}`);
  await send("GET", `/api/v1/nothing?q=${canary}`);
  await until("all spans are out", () => memory.spans.filter(isServer).length === asked);
  const told = JSON.stringify(memory.spans.map((s) => [s.name, s.attributes, s.events, s.status, s.links]));
  expect(told).not.toContain(canary);
  for (const name of ["INSERT blocks", "SELECT blocks", "UPDATE libraries", "GET /api/v1/search/tags"])
    expect(
      names(memory.spans).some((n) => n.startsWith(name)),
      name,
    ).toBe(true);
});

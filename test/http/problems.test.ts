import { afterAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { problems } from "../../src/errors.ts";
import { type Answer, openApi } from "../support/api.ts";
import { openGate } from "../support/gate.ts";
import { countRows } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";

const database = await testDatabase();
const { db, close } = database.open();
afterAll(close);
const api = openApi(db, { env: { API_MAX_BODY_BYTES: "4096" } });
const { send } = api;
const nobody = "00000000-0000-7000-8000-000000000000";
const canary = "zebra7canary";

/** What RFC 9457 and our own rules ask of every problem. */
function expectProblem(answer: Answer, code: keyof typeof problems): void {
  const [status, title] = problems[code];
  expect(answer.status).toBe(status);
  expect(answer.headers.get("content-type")).toBe("application/problem+json");
  expect(answer.body).toEqual({
    type: `urn:wordloom:problem:${code}`,
    title,
    status,
    detail: expect.stringMatching(/\S/),
    code,
    correlation_id: answer.headers.get("x-request-id"),
    ...(answer.body.errors ? { errors: expect.any(Array) } : {}),
  });
  expect(answer.text).not.toContain(canary);
  expect(answer.headers.get("cache-control")).toBe("no-store");
  expect(answer.headers.get("x-content-type-options")).toBe("nosniff");
}

test("what is not JSON is 400, whatever is wrong with it, and nothing is written", async () => {
  const before = await countRows(db);
  const bodies = [
    "",
    "{",
    `{"name":"${canary}"`,
    "{'a':1}",
    canary,
    "[".repeat(4000),
    '{"a":1}}',
    "\u0000",
    "undefined",
    `${"[".repeat(500)}${"]".repeat(500)}`,
    `{"name":"deep","description":${'{"a":'.repeat(64)}1${"}".repeat(64)}}`,
    '{"name":1e400}',
    '{"name":"n","description":9007199254740993}',
    '{"name":[-9007199254740992]}',
  ];
  for (const body of bodies) expectProblem(await send("POST", "/api/v1/tags", body), "MALFORMED_JSON");
  const latin = new Request("http://localhost/api/v1/tags", {
    method: "POST",
    body: Buffer.from('{"name":"caf\xe9"}', "latin1"),
  });
  expect((await api.server.handle(latin)).status).toBe(400);
  expect(await countRows(db)).toEqual(before);
});

test("what does not fit its schema is 422 and told where and why, never what was sent", async () => {
  const before = await countRows(db);
  const cases: [string, string, unknown, unknown[]][] = [
    [
      "POST",
      "/api/v1/tags",
      { name: canary, [canary]: 1 },
      [{ in: "body", pointer: "", detail: "only these are known here: name, color, icon, description" }],
    ],
    [
      "POST",
      "/api/v1/tags",
      { name: canary.padEnd(51, "x") },
      [{ in: "body", pointer: "/name", detail: "must be one line of 1 to 50 characters" }],
    ],
    [
      "POST",
      "/api/v1/tags",
      {},
      [{ in: "body", pointer: "/name", detail: "is required: one line of 1 to 50 characters" }],
    ],
    ["POST", "/api/v1/tags", [canary], [{ in: "body", pointer: "", detail: "must be a JSON object" }]],
    ["POST", "/api/v1/tags", `"${canary}"`, [{ in: "body", pointer: "", detail: "must be a JSON object" }]],
    ["POST", "/api/v1/tags", "null", [{ in: "body", pointer: "", detail: "must be a JSON object" }]],
    [
      "POST",
      "/api/v1/tags",
      { name: "ok", color: canary },
      [{ in: "body", pointer: "/color", detail: "must be a colour as #RRGGBB or #RRGGBBAA" }],
    ],
    [
      "PATCH",
      `/api/v1/tags/${nobody}`,
      {},
      [{ in: "body", pointer: "", detail: "at least one of: name, color, icon, description, parent_tag_id" }],
    ],
    ["GET", `/api/v1/tags/${canary}`, undefined, [{ in: "path", pointer: "/id", detail: "must be a UUID" }]],
    ["DELETE", `/api/v1/blocks/${canary}`, undefined, [{ in: "path", pointer: "/id", detail: "must be a UUID" }]],
    [
      "GET",
      `/api/v1/search?q=${canary}&limit=${canary}`,
      undefined,
      [{ in: "query", pointer: "/limit", detail: "must be a whole number from 1 to 100" }],
    ],
    [
      "GET",
      "/api/v1/search",
      undefined,
      [{ in: "query", pointer: "/q", detail: expect.stringContaining("is required") }],
    ],
  ];
  for (const [method, path, body, errors] of cases) {
    const answer = await send(method, path, body);
    expectProblem(answer, "VALIDATION_ERROR");
    expect([path, answer.body.errors]).toEqual([path, errors]);
  }
  expect(await countRows(db)).toEqual(before);
});

test("no field of any request echoes its input, comes to 5xx, or is written, when it holds what Postgres cannot", async () => {
  const before = await countRows(db);
  const requests: [string, Record<string, unknown>][] = [
    ["/api/v1/tags", { name: "n", color: "#FFFFFF", icon: "i", description: "d" }],
    ["/api/v1/libraries", { name: "n", description: "d", theme_color: "t" }],
    ["/api/v1/bookshelves", { library_id: nobody, name: "n", description: "d" }],
    ["/api/v1/books", { bookshelf_id: nobody, library_id: nobody, title: "t", summary: "s", cover_icon: "c" }],
    ["/api/v1/blocks", { book_id: nobody, block_type: "text", content: "c", position_after_id: nobody }],
  ];
  const hostile = [`${canary}\0`, `${canary}\ud800`, `\udc00${canary}`, { [canary]: 1 }, [canary], 5, true];
  for (const [path, good] of requests)
    for (const field of Object.keys(good))
      for (const value of hostile)
        for (const [method, at] of [
          ["POST", path],
          ["PATCH", `${path}/${nobody}`],
        ] as const) {
          const answer = await send(method, at, JSON.stringify({ ...(method === "POST" ? good : {}), [field]: value }));
          expect([method, path, field, value, answer.status]).toEqual([method, path, field, value, 422]);
          expectProblem(answer, "VALIDATION_ERROR");
        }
  expect(await countRows(db)).toEqual(before);
});

test("an unknown path is 404, a known one with another method 405 with what it allows", async () => {
  for (const path of [
    "/",
    `/${canary}`,
    "/api/v1",
    "/api/v2/tags",
    `/api/v1/tags/${nobody}/${canary}`,
    "/api/v1/tags%00",
    "//api//v1//tags",
  ])
    expectProblem(await send("GET", path), "ROUTE_NOT_FOUND");
  const allowed: [string, string][] = [
    ["/api/v1/tags", "GET, HEAD, POST"],
    [`/api/v1/tags/${nobody}`, "DELETE, GET, HEAD, PATCH"],
    [`/api/v1/libraries/${nobody}`, "DELETE, GET, HEAD, PATCH"],
    ["/api/v1/search", "GET, HEAD"],
    ["/livez", "GET, HEAD"],
  ];
  for (const [path, allow] of allowed)
    for (const method of ["PUT", "OPTIONS"]) {
      const answer = await send(method, path);
      expectProblem(answer, "METHOD_NOT_ALLOWED");
      expect([path, answer.headers.get("allow")]).toEqual([path, allow]);
    }
});

test("a body that is too large is 413, with its length announced or not", async () => {
  const body = JSON.stringify({ name: canary, description: "x".repeat(5000) });
  expectProblem(await send("POST", "/api/v1/tags", body, { "content-length": String(body.length) }), "BODY_TOO_LARGE");
  const chunked = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(new TextEncoder().encode(" ".repeat(1000))),
  });
  // It never ends: read whole, it would not be answered.
  const endless = new Request("http://localhost/api/v1/tags", { method: "POST", body: chunked });
  expect((await api.server.handle(endless)).status).toBe(413);
});

test("the request's id is echoed where it is safe, in header, problem and log, and made where it is not", async () => {
  expect((await send("GET", "/livez", undefined, { "x-request-id": "a.b:c-1_2" })).headers.get("x-request-id")).toBe(
    "a.b:c-1_2",
  );
  expect((await send("GET", "/livez?cid=from-query")).headers.get("x-request-id")).toBe("from-query");
  for (const id of [`${canary} x`, "x".repeat(129), `<${canary}>`]) {
    const answer = await send("GET", "/nowhere", undefined, { "x-request-id": id });
    expect(answer.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    expectProblem(answer, "ROUTE_NOT_FOUND");
  }
});

test("a request is logged with what its caller has given it to be found by, where that is safe, and its answer with its length", async () => {
  const linesOf = (id: string) => api.logged.filter((l) => l.includes(`"${id}"`)).map((l): unknown => JSON.parse(l));
  const { text } = await send("GET", "/api/v1/tags?cid=c-1&cache_bust=17%C3%BC", undefined, {});
  expect(linesOf("c-1")).toMatchObject([
    { event: "http.request_received", cid: "c-1", path: "/api/v1/tags" },
    { event: "http.response", response_bytes: Buffer.byteLength(text) },
  ]);
  expect(linesOf("c-1")[0]).not.toHaveProperty("cache_bust");
  await send("GET", "/api/v1/tags?cache_bust=17", undefined, { "x-request-id": "c-2" });
  expect(linesOf("c-2")[0]).toMatchObject({ cache_bust: "17" });
  expect(linesOf("c-2")[0]).not.toHaveProperty("cid");
  await send("GET", "/api/v1/search?q=words&cache_bust=18", undefined, { "x-request-id": "c-3" });
  expect(linesOf("c-3")).toMatchObject([
    { cache_bust: "18" },
    { status_code: 503, reason: "SEARCH_UNAVAILABLE", message: "GET /api/v1/search 503 SEARCH_UNAVAILABLE" },
  ]);
});

test("what does not fit the schema is logged with its places, and without what was sent", async () => {
  await send("POST", "/api/v1/tags", { name: canary, color: canary, [canary]: 1 }, { "x-request-id": "misfit" });
  const line = api.logged.find((l) => l.includes('"schema.validation_failed"') && l.includes("misfit")) ?? "{}";
  expect(JSON.parse(line)).toMatchObject({
    level: "info",
    path: "/api/v1/tags",
    status_code: 422,
    error_count: 2,
    errors: expect.arrayContaining([expect.objectContaining({ in: "body", pointer: "/color" })]),
  });
  expect(line).not.toContain(canary);
});

test("an unforeseen error is 500 with nothing of it in the answer, and its place in the log without what the user wrote", async () => {
  await db.execute(
    sql`create function burst() returns trigger language plpgsql as $$ begin raise exception 'innards of %', new.name; end $$`,
  );
  await db.execute(sql`create trigger burst before insert on tags for each row execute function burst()`);
  const answer = await send("POST", "/api/v1/tags", { name: canary }, { "x-request-id": "the-500" });
  await db.execute(sql`drop trigger burst on tags`);
  expectProblem(answer, "INTERNAL");
  expect(answer.text).not.toContain("innards");
  const line = api.logged.find((l) => l.includes("http.unexpected_error") && l.includes("the-500"));
  expect(line).toContain("SQLSTATE P0001");
  expect(line).not.toContain(canary);
});

test("a wait for another's lock that takes too long is 503, to be tried again", async () => {
  const impatient = database.open({ statementTimeoutMs: 200 });
  const { body } = await send("POST", "/api/v1/tags", { name: "locked" });
  const release = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  const holding = db.transaction(async (tx) => {
    await tx.execute(sql`select 1 from tags where id = ${body.id} for update`);
    held.resolve();
    await release.promise;
  });
  await held.promise;
  const answer = await openApi(impatient.db).send("PATCH", `/api/v1/tags/${body.id}`, { description: canary });
  release.resolve();
  await holding;
  await impatient.close();
  expectProblem(answer, "DATABASE_BUSY");
  expect(answer.headers.get("retry-after")).toBe("1");
});

test("a lock inside a write of several statements is 503 too, whichever of them waits for it", async () => {
  const impatient = database.open({ statementTimeoutMs: 200 });
  const own = openApi(impatient.db);
  for (const table of ["tags", "search_index", "chronicle_events", "search_outbox_events"]) {
    await db.transaction(async (tx) => {
      await tx.execute(sql`lock table ${sql.identifier(table)} in access exclusive mode`);
      for (let i = 0; i < 3; i += 1) {
        const answer = await own.send("POST", "/api/v1/tags", { name: `behind ${table} ${i}` });
        expectProblem(answer, "DATABASE_BUSY");
        expect(answer.headers.get("retry-after")).toBe("1");
      }
    });
    expect((await own.send("POST", "/api/v1/tags", { name: `after ${table}` })).status).toBe(201);
  }
  await impatient.close();
});

test("a request for which no connection is free in time is 503, to be tried again, and has written nothing", async () => {
  const small = database.open({ max: 1, poolTimeoutMs: 100 });
  const own = openApi(small.db);
  const release = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  const holding = small.db.transaction(async () => {
    held.resolve();
    await release.promise;
  });
  await held.promise;
  const before = await countRows(db);
  for (const [method, path, body] of [
    ["POST", "/api/v1/tags", { name: "no room" }],
    ["GET", `/api/v1/tags/${nobody}`, undefined],
  ] as const) {
    const answer = await own.send(method, path, body);
    expectProblem(answer, "DATABASE_UNAVAILABLE");
    expect(answer.headers.get("retry-after")).toBe("1");
  }
  expect(await countRows(db)).toEqual(before);
  release.resolve();
  await holding;
  expect((await own.send("POST", "/api/v1/tags", { name: "no room" })).status).toBe(201);
  await small.close();
});

test("a database that is gone is 503 everywhere but where it is not needed, and is found again", async () => {
  const gate = openGate(database.address);
  const { behind } = gate;
  const own = openApi(behind.db);
  const expectGone = async () => {
    expectProblem(await own.send("POST", "/api/v1/tags", { name: canary }), "DATABASE_UNAVAILABLE");
    expectProblem(await own.send("GET", `/api/v1/tags/${nobody}`), "DATABASE_UNAVAILABLE");
    expectProblem(await own.send("GET", "/readyz"), "DATABASE_UNAVAILABLE");
    expect((await own.send("GET", "/livez")).status).toBe(200);
    expect((await own.send("GET", "/api/v1/health")).body.status).toBe("healthy");
  };
  const expectBack = () => until("it is ready", async () => (await own.send("GET", "/readyz")).status === 200, 10_000);
  await expectGone();
  expect(own.logged.map((line): unknown => JSON.parse(line))).toContainEqual(
    expect.objectContaining({
      event: "http.response",
      route: "/api/v1/tags",
      reason: "DATABASE_UNAVAILABLE",
      error: "ENOENT",
    }),
  );
  await gate.open();
  await expectBack();
  await gate.close();
  await expectGone();
  await gate.open();
  await expectBack();
  await behind.close();
  await gate.close();
});

test("a database that is silent makes /readyz answer 503 within its second", async () => {
  const gate = openGate(database.address);
  const { behind } = gate;
  await gate.open({ silent: true });
  const from = performance.now();
  expectProblem(await openApi(behind.db).send("GET", "/readyz"), "DATABASE_UNAVAILABLE");
  expect(performance.now() - from).toBeLessThan(3000);
  await gate.close();
  await behind.close();
});

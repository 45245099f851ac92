import { afterAll, afterEach, expect, test } from "bun:test";
import { createConnection } from "node:net";
import { sql } from "drizzle-orm";
import { openApi, type TestApi } from "../support/api.ts";
import { rejection } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";

const { db, close } = (await testDatabase()).open({ max: 5, statementTimeoutMs: 30_000 });
afterAll(close);

const started: TestApi[] = [];
afterEach(async () => {
  await Promise.all(started.splice(0).map((api) => api.server.stop(0)));
});
function start(env: Record<string, string> = {}) {
  const api = openApi(db, { env });
  started.push(api);
  return { ...api, ...api.server.listen("127.0.0.1", 0) };
}

/** Sends bytes as they are; resolves with all that comes back until the server closes, or until `enough`. */
function raw(port: number, bytes: string, enough: (answer: string) => boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = createConnection({ host: "127.0.0.1", port }, () => socket.write(bytes));
    socket.on("data", (chunk) => {
      answer += chunk.toString("utf8");
      if (enough(answer)) socket.destroy();
    });
    socket.on("error", reject).on("close", () => resolve(answer));
  });
}

/** Holds every insert of a tag until it is released; "access exclusive" holds whoever reads tags, too. */
async function holdTags(mode: "exclusive" | "access exclusive" = "exclusive") {
  const held = Promise.withResolvers<void>();
  const release = Promise.withResolvers<void>();
  const holding = db.transaction(async (tx) => {
    await tx.execute(sql.raw(`lock table tags in ${mode} mode`));
    held.resolve();
    await release.promise;
  });
  await held.promise;
  return {
    /** Resolves once a statement waits for the lock. */
    waiting: () => {
      const waits = () => db.execute(sql`select 1 from pg_locks where relation = 'tags'::regclass and not granted`);
      return until("a statement waits", async () => (await waits()).length > 0, 10_000);
    },
    release: async () => {
      release.resolve();
      await holding;
    },
  };
}

const post = (url: string, name: string) =>
  fetch(`${url}/api/v1/tags`, { method: "POST", body: JSON.stringify({ name }) });

test("curl's -d, which calls every body a form, writes a tag", async () => {
  const { url } = start();
  const curl = Bun.spawn([
    "curl",
    "-s",
    "-X",
    "POST",
    `${url}/api/v1/tags`,
    "-d",
    '{"name":"from curl","color":"#FFFFFF"}',
    "-w",
    "%{http_code}",
  ]);
  expect(await new Response(curl.stdout).text()).toEndWith("201");
});

test("HEAD answers like GET, without the body", async () => {
  const { url } = start();
  for (const path of [
    "/livez",
    "/readyz",
    "/metrics",
    "/api/v1/health",
    "/api/v1/tags/00000000-0000-7000-8000-000000000000",
    "/nowhere",
  ]) {
    const [head, get] = await Promise.all([fetch(url + path, { method: "HEAD" }), fetch(url + path)]);
    expect([path, head.status, head.headers.get("content-type")]).toEqual([
      path,
      get.status,
      get.headers.get("content-type"),
    ]);
    expect([await head.text(), (await get.text()).length > 0]).toEqual(["", true]);
  }
});

test("a host of any length is routed alike", async () => {
  const { port } = start();
  for (const host of ["a", "ab", "api", "localhost", "a-rather-long-name.example"]) {
    const answer = await raw(port, `GET /livez HTTP/1.1\r\nHost: ${host}\r\n\r\n`, (a) => a.includes("alive"));
    expect([host, answer.split("\r\n")[0]]).toEqual([host, "HTTP/1.1 200 OK"]);
  }
});

test.each([
  "GET /livez HTTP/1.0\r\n\r\n",
  "GET /livez HTTP/1.1\r\nHost: \r\n\r\n",
  "GET /livez HTTP/1.1\r\nHost: x:99999999\r\n\r\n",
  "GET /livez HTTP/1.1\r\nHost: [::1\r\n\r\n",
])("a request that names no host, or none that is one, is answered all the same: %j", async (request) => {
  const { port } = start();
  expect(await raw(port, request, (answer) => answer.includes("alive"))).toMatch(/^HTTP\/1\.[01] 200 /);
});

test("a body that only turns out to be too large is 413 before all of it is there, and the next request is served", async () => {
  const { port, url } = start({ API_MAX_BODY_BYTES: "2000" });
  const chunk = `3e8\r\n${"x".repeat(1000)}\r\n`;
  const endless = `POST /api/v1/tags HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n${chunk.repeat(5)}`;
  expect(await raw(port, endless, (a) => a.includes("}"))).toContain("BODY_TOO_LARGE");
  const announced = "POST /api/v1/tags HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n{";
  expect(await raw(port, announced, (a) => a.includes("}"))).toContain("BODY_TOO_LARGE");
  expect((await post(url, "after")).status).toBe(201);
});

test("a port in use is an error that says so, and is not shared", async () => {
  const { port } = start();
  const second = openApi(db);
  expect(await rejection(Promise.try(() => second.server.listen("127.0.0.1", port)))).toMatchObject({
    code: "EADDRINUSE",
  });
});

test("a request that waits for longer than Bun lets a connection be silent is answered", async () => {
  const { port } = start();
  const tags = await holdTags("access exclusive");
  const path = "/api/v1/tags/00000000-0000-7000-8000-000000000000";
  const inFlight = raw(port, `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`, (answer) => answer.includes("}"));
  await tags.waiting();
  // Left to itself Bun closes a silent connection after 10 to 12 s.
  await Promise.race([inFlight, Bun.sleep(14_000)]);
  await tags.release();
  expect(await inFlight).toStartWith("HTTP/1.1 404");
}, 30_000);

test("stopping lets what is in flight finish, takes nothing new, and is not ready at once", async () => {
  const api = start();
  const tags = await holdTags();
  const inFlight = post(api.url, "in flight");
  await tags.waiting();
  const stopping = api.server.stop(10_000);
  expect(api.readiness.draining).toBeTrue();
  const [ready, live, refused] = await Promise.all([
    api.send("GET", "/readyz"),
    api.send("GET", "/livez"),
    api.send("POST", "/api/v1/tags", { name: "late" }),
  ]);
  expect([ready.status, ready.body.code]).toEqual([503, "DRAINING"]);
  expect(live.status).toBe(200);
  expect([refused.status, refused.body.code]).toEqual([503, "DRAINING"]);
  expect(await rejection(fetch(`${api.url}/livez`, { keepalive: false }))).toMatchObject({
    code: expect.stringMatching(/Connection|ECONN/),
  });
  await tags.release();
  expect((await inFlight).status).toBe(201);
  await stopping;
});

test("stopping drops what is in flight after its grace, and what it was writing is whole or not there", async () => {
  const api = start();
  const tags = await holdTags();
  const inFlight = post(api.url, "dropped").then(
    (r) => r.status,
    () => "dropped",
  );
  await tags.waiting();
  await api.server.stop(50);
  expect(await inFlight).toBe("dropped");
  await tags.release();
  const rows = () =>
    db.execute<{ tags: number; events: number }>(sql`
      select (select count(*)::int from tags where name = 'dropped') as tags,
             (select count(*)::int from search_index where title = 'dropped') as events`);
  const [row] = await rows();
  expect(row?.tags).toBe(row?.events ?? -1);
});

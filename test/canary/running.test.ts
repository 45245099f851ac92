import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { connect } from "node:net";
import { sql } from "drizzle-orm";
import { wordloom } from "../support/cli.ts";
import { startServe, startWork } from "../support/processes.ts";
import { until } from "../support/until.ts";
import { canary } from "./evidence.ts";
import {
  common,
  db,
  door,
  elastic,
  evidence,
  expectNothing,
  line,
  otlp,
  run,
  secrets,
  settled,
  store,
  text,
  withoutKey,
  withTrouble,
} from "./scene.ts";
import { type Answer, hang, items, page, quoting, refusal } from "./servers.ts";

// Real processes, one after the other, and every failure that they know.
setDefaultTimeout(120_000);

const api = await startServe({ ...common, ...withoutKey });
const worker = await startWork({ ...common, ...secrets, OUTBOX_REQUIRE_ES_READY: "1" });
// Where a test fails they are still there.
afterAll(() => {
  for (const process of [api, worker]) process.kill("SIGKILL");
});

type Answered = { readonly status: number; readonly id: string };
/** One request. What it is answered is evidence, but for the texts that a read gives back to their owner. */
async function send(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answered> {
  const answer = await fetch(`${api.url}${path}`, {
    method,
    ...(headers === undefined ? {} : { headers }),
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const said = await answer.text();
  evidence.add("api headers", JSON.stringify([...answer.headers]));
  if (answer.status >= 300 || !said.startsWith("{")) evidence.add(`api ${answer.status}`, said);
  const { id = "" } = answer.ok && said.startsWith("{") ? (JSON.parse(said) as { id?: string }) : {};
  return { status: answer.status, id };
}
const create = async (path: string, body: Record<string, unknown>): Promise<string> => {
  const { status, id } = await send("POST", `/api/v1/${path}`, body);
  expect([path, status]).toEqual([path, 201]);
  return id;
};
const newTag = () => create("tags", { name: crypto.randomUUID(), description: text("tagtext") });

const failedEvents = async (queue: "search" | "chronicle") =>
  (await db.execute(sql`select id from ${sql.identifier(`${queue}_outbox_events`)} where status = 'failed'`)).length;

async function pages(): Promise<void> {
  for (const accept of ["text/plain", "application/openmetrics-text"])
    for (const [place, url] of [
      ["metrics of the api", `${api.url}/metrics`],
      ["metrics of the worker", worker.metricsUrl],
    ] as const)
      evidence.add(place, await (await fetch(url, { headers: { accept } })).text());
  for (const path of ["/livez", "/readyz", "/healthz"])
    evidence.add(`worker${path}`, await (await fetch(`${worker.url}${path}`)).text());
}

test("what is written is nobody's but its owner's, whatever becomes of the request", async () => {
  const library = await create("libraries", { name: line("library"), description: text("librarytext") });
  const shelf = await create("bookshelves", {
    library_id: library,
    name: line("shelf"),
    description: text("shelftext"),
  });
  const shelved = { bookshelf_id: shelf, library_id: library };
  const book = await create("books", { ...shelved, title: line("title"), summary: text("summary") });
  const inBook = { book_id: book, block_type: "text" };
  const block = await create("blocks", {
    ...inBook,
    content: text("block"),
    metadata: { [canary("meta")]: canary("meta") },
  });
  const tag = await create("tags", { name: line("tag"), description: text("tagtext"), icon: canary("icon") });
  expect(
    (await send("PATCH", `/api/v1/tags/${tag}`, { name: line("renamed"), description: text("changed") })).status,
  ).toBe(200);
  await settled();
  for (const kind of ["", "/blocks", "/tags", "/books"])
    expect((await send("GET", `/api/v1/search${kind}?q=${canary("block")}%20${canary("query")}`)).status).toBe(200);

  const nobody = crypto.randomUUID();
  const word = canary("input");
  // Of a request its path is told, as url.path of the server span: no secrets are there, and no text. Its query never is.
  const stray = "elsewhere";
  const good: Record<string, Record<string, unknown>> = {
    libraries: { name: "n", description: "d", theme_color: "t" },
    bookshelves: { library_id: library, name: "n", description: "d" },
    books: { ...shelved, title: "t", summary: "s", cover_icon: "c" },
    blocks: { ...inBook, content: "c", heading_level: 1, metadata: {}, position_after_id: null },
    tags: { name: "n", color: "#FFFFFF", icon: "i", description: "d" },
  };
  const malformed = [
    "",
    "{",
    `{"name":"${word}"`,
    `{'${word}':1}`,
    word,
    `"${word}"`,
    `[${word}]`,
    `{"a":1}}${word}`,
    `\0${word}`,
  ];
  const hostile = [`${word}\0`, `${word}\ud800`, { [word]: 1 }, [word], word.repeat(300)];
  for (const [kind, fields] of Object.entries(good)) {
    const path = `/api/v1/${kind}`;
    const patched = kind === "tags" ? [["PATCH", `${path}/${tag}`]] : [];
    for (const [method = "", to = ""] of [["POST", path], ...patched]) {
      for (const body of malformed) expect([400, 422], body).toContain((await send(method, to, body)).status);
      expect((await send(method, to, { ...fields, [word]: word })).status).toBe(422);
      expect((await send(method, to, { [word]: word.repeat(500) })).status).toBe(413);
      // Any object will do as metadata.
      for (const field of Object.keys(fields))
        for (const value of hostile.filter((v) => field !== "metadata" || typeof v !== "object"))
          expect([413, 422], `${kind} ${field}`).toContain(
            (await send(method, to, { ...fields, [field]: value })).status,
          );
    }
    for (const id of [stray, nobody, `${stray}%00`, "%E0%A4%A", `${nobody}/${stray}?${word}=${word}`]) {
      expect((await send("GET", `${path}/${id}`)).status).toBeGreaterThanOrEqual(400);
      expect((await send("DELETE", `${path}/${id}`)).status).toBeGreaterThanOrEqual(400);
      expect((await send("PUT", `${path}/${id}`, word)).status).toBeGreaterThanOrEqual(400);
    }
  }
  for (const [to, body] of [
    ["libraries", { name: line("library") }],
    ["bookshelves", { library_id: library, name: line("shelf") }],
    ["tags", { name: line("renamed") }],
  ] as const)
    expect([to, (await send("POST", `/api/v1/${to}`, body)).status]).toEqual([to, 409]);
  for (const query of [
    `q=${word}&limit=${word}`,
    `${word}=${word}`,
    `q=${"x".repeat(501)}${word}`,
    `q=${word}&library_id=${word}`,
    `q=${word}&offset=9999&limit=100`,
    `q=%E0${word}&entity_type=${word}`,
  ])
    expect([query, (await send("GET", `/api/v1/search?${query}`)).status]).toEqual([query, 422]);
  const strange = {
    "content-type": `text/${word}`,
    "x-request-id": `${word} `.repeat(2),
    traceparent: `00-${word}-${word}-01`,
    tracestate: `${word} = ${word}`,
    cookie: word,
    authorization: word,
    "user-agent": word,
    baggage: `a=${word}`,
  };
  expect((await send("POST", `/api/v1/tags?cid=${word}%20`, { name: "strange" }, strange)).status).toBe(201);
  expect((await send("POST", `/${stray}/tags?${word}`, { name: word }, strange)).status).toBe(404);
  // What no client library sends.
  for (const request of [
    `${word} /livez HTTP/1.1\r\nhost: a\r\n\r\n`,
    `GET /?${word} HTTP/9.${word}\r\n\r\n`,
    `GET /livez HTTP/1.1\r\nhost: ${word}\r\n${word}\r\n\r\n`,
  ]) {
    const socket = connect({ host: "127.0.0.1", port: Number(new URL(api.url).port) });
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.end(request);
    await new Promise((resolve) => socket.on("close", resolve));
    evidence.add("api raw", Buffer.concat(chunks).toString());
  }
  for (const [kind, id] of [
    ["blocks", block],
    ["books", book],
    ["bookshelves", shelf],
    ["libraries", library],
    ["tags", tag],
  ] as const) {
    expect([200, 404], kind).toContain((await send("GET", `/api/v1/${kind}/${id}`)).status);
    await send("DELETE", `/api/v1/${kind}/${id}`);
    expect([kind, (await send("DELETE", `/api/v1/${kind}/${id}`)).status]).toEqual([kind, 409]);
  }
  await settled();
  await pages();
  expect(Array.from(elastic.shown).join()).toContain(`${canary("esuser")}:${canary("espassword")}`);
  expect(Array.from(elastic.shown).join()).toContain(canary("esapikey"));
  expectNothing();
});

/** What the engine says to one request after the other; then it answers as it should. */
function script(path: RegExp, answers: readonly Answer[]): { readonly left: () => number } {
  const left = [...answers];
  elastic.answer = ({ url }) => (path.test(url.pathname) ? (left.shift() ?? null) : null);
  return { left: () => left.length };
}

test("an engine that quotes all that it is told is not passed on by a search", async () => {
  const answers: [Answer, number][] = [
    [refusal(400, "search_phase_execution_exception"), 500],
    [page(400), 500],
    [refusal(401, "security_exception"), 503],
    [page(403), 503],
    [refusal(404, "index_not_found_exception"), 503],
    [refusal(429, "es_rejected_execution_exception"), 503],
    [page(502), 503],
    [page(200), 503],
    [hang, 503],
  ];
  script(
    /_search$/,
    answers.map(([answer]) => answer),
  );
  for (const [, status] of answers)
    expect(
      (await send("GET", `/api/v1/search?q=${canary("query")}`, undefined, { authorization: canary("input") })).status,
    ).toBe(status);
  await elastic.refuse();
  expect((await send("GET", `/api/v1/search?q=${canary("query")}`)).status).toBe(503);
  elastic.listen();
  await pages();
  expectNothing();
});

test("an engine that quotes all that it is told is not passed on by the projection", async () => {
  const logged = (what: string) => until(what, () => worker.lines.some((l) => l.includes(what)));
  const terminal = [
    ...Object.values(quoting).map((form) => items(400, form)),
    refusal(400, "illegal_argument_exception"),
    refusal(400, "parse_exception"),
    refusal(413, "content_too_long_exception"),
    page(413),
  ];
  for (const answer of terminal) {
    const before = await failedEvents("search");
    script(/_bulk$/, [answer]);
    await newTag();
    await until("it fails for good", async () => (await failedEvents("search")) > before);
  }
  const passing = [
    items(429, quoting.unknown),
    items(503, quoting.field),
    items(399, quoting.strict),
    items(409, quoting.token),
    refusal(401, "security_exception"),
    refusal(403, "security_exception"),
    refusal(404, "index_not_found_exception"),
    refusal(429, "circuit_breaking_exception"),
    refusal(500, "exception"),
    ...[302, 400, 403, 405, 502, 200].map(page),
    hang,
  ];
  const { left } = script(/_bulk$/, passing);
  const feed = setInterval(() => void newTag(), 100);
  await until("all was said", () => left() === 0);
  clearInterval(feed);
  await logged('"reason":"es_timeout"');
  await elastic.refuse();
  await newTag();
  await logged('"reason":"es_connect"');
  await pages();
  elastic.listen();
  await settled();
  expectNothing();
});

test("a database that quotes all that it is told is not passed on", async () => {
  for (const [code, status] of [
    ["P0001", 500],
    ["22P02", 500],
    ["42501", 500],
    ["57P01", 503],
    ["40001", 503],
    ["57014", 503],
  ] as const)
    await withTrouble(code, async () => {
      expect([
        code,
        (await send("POST", "/api/v1/tags", { name: line("refused"), description: text("tagtext") })).status,
      ]).toEqual([code, status]);
    });
  // The chronicle meets it too, for what was written before.
  await elastic.refuse();
  const before = await failedEvents("chronicle");
  await db.execute(sql`alter table tags disable trigger burst`);
  await withTrouble("P0001", async () => {
    await newTag();
    await until("the chronicle gives up", async () => (await failedEvents("chronicle")) > before);
  });
  elastic.listen();
  await settled();

  const waiting = await create("tags", { name: line("waiting") });
  const lock = Promise.withResolvers<void>();
  const locked = Promise.withResolvers<void>();
  const holding = db.transaction(async (tx) => {
    await tx.execute(sql`lock table search_index in access exclusive mode`);
    locked.resolve();
    await lock.promise;
  });
  await locked.promise;
  expect((await send("PATCH", `/api/v1/tags/${waiting}`, { description: text("changed") })).status).toBe(503);
  await db.execute(
    sql`insert into search_outbox_events (entity_type, entity_id, op, event_version) values ('tag', ${waiting}::uuid, 'upsert', 1)`,
  );
  await until("the worker waits in vain", () => worker.lines.some((l) => l.includes('"step":"prepare"')));
  lock.resolve();
  await holding;
  await settled();

  door.shut();
  await until("the worker's database is gone", async () => {
    const answer = await fetch(`${worker.url}/readyz`);
    const said = await answer.text();
    evidence.add("worker/readyz", said);
    return door.shown.length > 1 && !answer.ok && !said.includes("RUNNING");
  });
  expect((await send("POST", "/api/v1/tags", { name: line("refused") })).status).toBeGreaterThanOrEqual(500);
  expect((await send("GET", "/readyz")).status).toBe(503);
  await pages();
  for (const args of [["migrate"], ["serve", "--port", "0"], ["work"]]) {
    const { code, out, err } = await wordloom(args, { ...common, ...secrets });
    evidence.add(`${args[0]} before a shut door`, out + err);
    expect([args[0], code]).toEqual([args[0], 4]);
  }
  expect(new Set(door.shown)).toEqual(new Set([canary("dbparameter")]));
  door.open();
  await until(
    "it is back",
    async () => (await fetch(`${worker.url}/readyz`)).ok && (await fetch(`${api.url}/readyz`)).ok,
  );
  await newTag();
  await settled();
  expectNothing();
});

test("not in a line, a span, a metric, a reason or the chronicle, of all that happened here", async () => {
  await run(["replay", "--by", "ops", "--reason", "mended", "--json"], secrets, [0]);
  await run(["replay", "--by", "ops", "--reason", "mended", "--projection", "chronicle"], secrets, [0]);
  await pages();
  for (const process of [api, worker]) {
    process.kill("SIGTERM");
    expect(await process.exited).toBe(0);
  }
  evidence.add("lines of the api", api.lines.join("\n"));
  evidence.add("lines of the worker", worker.lines.join("\n"));
  for (const { place, error } of await db.execute<{ place: string; error: string }>(sql`select place, error from told`))
    evidence.add(`reason in ${place}`, error);
  for (const table of ["chronicle_events", "chronicle_entries"]) {
    const rows = await db.execute(sql`select to_jsonb(e) as row from ${sql.identifier(table)} e`);
    evidence.add(table, JSON.stringify(rows));
  }
  const { data: services } = (await (await fetch(`${store.queryUrl}/api/services`)).json()) as { data: string[] };
  for (const service of services)
    evidence.add(
      `spans of ${service}`,
      await (await fetch(`${store.queryUrl}/api/traces?service=${service}&limit=20000`)).text(),
    );

  const seen: [string, string | RegExp][] = [
    ["lines of the api", '"event":"http.unexpected_error"'],
    ["lines of the api", "SQLSTATE P0001"],
    ["lines of the worker", '"error_type":"document_parsing_exception"'],
    ...[
      "es_4xx",
      "es_404",
      "es_429",
      "es_5xx",
      "es_connect",
      "es_timeout",
      "es_unknown",
      "version_anomaly",
      "db_contention",
    ].map((reason): [string, string] => ["lines of the worker", `"reason":"${reason}"`]),
    ["lines of the worker", '"step":"prepare"'],
    ["reason in search_outbox_events_live", "field [title]"],
    ["reason in chronicle_outbox_events_live", /./],
    ["reason in outbox_replays", /./],
    ["chronicle_entries", "tag_created"],
    ["spans of wordloom-api", "POST /api/v1/tags"],
    ["spans of wordloom-search-outbox-worker", "outbox.process"],
    ["spans of wordloom-chronicle-outbox-worker", "outbox.process"],
    ["metrics of the worker", 'reason="es_429"'],
    ["api 500", "INTERNAL"],
    ["api 409", "TAG_ALREADY_EXISTS"],
    ["api 413", "BODY_TOO_LARGE"],
  ];
  expectNothing(seen);
  const shown = Array.from(otlp.shown).join();
  for (const secret of ["otlpheader", "otlpkey"]) expect(shown).toContain(canary(secret));
});

import { afterAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { readConfig } from "../../src/config.ts";
import { type Answer, openApi } from "../support/api.ts";
import { contradictions, countRows, rejection } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";

const testbed = await testDatabase();
const { db, close } = testbed.open({ max: 10 });
afterAll(close);
const api = openApi(db);
const { send } = api;

const create = async (fields: Record<string, unknown>): Promise<Answer["body"]> => {
  const { status, body } = await send("POST", "/api/v1/tags", fields);
  expect(status).toBe(201);
  return body;
};
const codeOf = (answer: Answer) => [answer.status, answer.body.code];

test("a tag is created, read, changed and deleted", async () => {
  const made = await send("POST", "/api/v1/tags", {
    name: "first",
    color: "#FFFFFF80",
    icon: "🧵",
    description: "two\nlines",
  });
  expect(made.status).toBe(201);
  expect(made.headers.get("location")).toBe(`/api/v1/tags/${made.body.id}`);
  expect(made.body).toEqual({
    id: expect.stringMatching(/^[0-9a-f-]{36}$/),
    name: "first",
    color: "#FFFFFF80",
    icon: "🧵",
    description: "two\nlines",
    level: 0,
    parent_tag_id: null,
    usage_count: 0,
    version: "1",
    created_at: expect.any(String),
    updated_at: made.body.created_at,
    deleted_at: null,
  });
  const at = `/api/v1/tags/${made.body.id}`;
  expect((await send("GET", at)).body).toEqual(made.body);
  const changed = await send("PATCH", at, { name: "second", description: null });
  expect(changed.status).toBe(200);
  expect(changed.body).toMatchObject({ name: "second", description: null, color: "#FFFFFF80", version: "2" });
  const deleted = await send("DELETE", at);
  expect([deleted.status, deleted.text]).toEqual([204, ""]);
  expect(codeOf(await send("DELETE", at))).toEqual([409, "TAG_ALREADY_DELETED"]);
  expect(codeOf(await send("GET", at))).toEqual([404, "TAG_NOT_FOUND"]);
  expect(codeOf(await send("PATCH", at, { name: "third" }))).toEqual([404, "TAG_NOT_FOUND"]);
});

test("names that somebody holds keep nobody waiting but those who want them", async () => {
  const held = ["held 1", "held 2", "held 3"];
  const holder = testbed.open({ max: 1 });
  const [release, taken] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const holding = holder.db.transaction(async (tx) => {
    for (const name of held)
      await tx.execute(
        sql`insert into tags (id, user_id, name) values (gen_random_uuid(), ${readConfig({}).DEV_USER_ID}, ${name})`,
      );
    taken.resolve();
    await release.promise;
    throw new Error("rolled back");
  });
  await taken.promise;
  const post = async (name: string) => (await send("POST", "/api/v1/tags", { name })).status;
  const waiting = held.map(post);
  const neighbours = Array.from({ length: 20 }, (_, i) => post(`neighbour ${i}`));
  expect(await Promise.all(neighbours)).toEqual(Array(20).fill(201));
  release.resolve();
  await rejection(holding);
  expect(await Promise.all(waiting)).toEqual([201, 201, 201]);
  await holder.close();
});

test("a body is read as JSON whatever its content type says, and without one", async () => {
  for (const type of [
    "application/x-www-form-urlencoded",
    "text/plain",
    "multipart/form-data; boundary=x",
    "application/json",
    "",
  ])
    expect(
      (await send("POST", "/api/v1/tags", `{"name":"as ${type}"}`, type ? { "content-type": type } : {})).status,
    ).toBe(201);
  const bytes = new Request("http://localhost/api/v1/tags", {
    method: "POST",
    body: new TextEncoder().encode('{"name":"untyped"}'),
  });
  expect((await api.server.handle(bytes)).status).toBe(201);
});

test("a name has 1 to 50 characters as people count them", async () => {
  expect((await send("POST", "/api/v1/tags", { name: "🧵".repeat(50) })).status).toBe(201);
  expect((await send("POST", "/api/v1/tags", { name: "文".repeat(50) })).status).toBe(201);
  for (const name of ["", " ", "x".repeat(51), "🧵".repeat(51), "a\nb", "a\u0000", "\ud800", 5, null, ["x"]])
    expect(codeOf(await send("POST", "/api/v1/tags", { name }))).toEqual([422, "VALIDATION_ERROR"]);
});

test("a name is taken until its tag is deleted, and renaming to it is refused too", async () => {
  const mine = await create({ name: "mine" });
  const other = await create({ name: "other" });
  expect(codeOf(await send("POST", "/api/v1/tags", { name: "mine" }))).toEqual([409, "TAG_ALREADY_EXISTS"]);
  expect(codeOf(await send("PATCH", `/api/v1/tags/${other.id}`, { name: "mine" }))).toEqual([
    409,
    "TAG_ALREADY_EXISTS",
  ]);
  await send("DELETE", `/api/v1/tags/${mine.id}`);
  expect((await send("PATCH", `/api/v1/tags/${other.id}`, { name: "mine" })).body.version).toBe("2");
});

test("of 100 concurrent tags of one name one is created and 99 are refused, with nothing left of them", async () => {
  const before = await countRows(db);
  const answers = await Promise.all(
    Array.from({ length: 100 }, () => send("POST", "/api/v1/tags", { name: "one of many" })),
  );
  expect(answers.filter((a) => a.status === 201)).toHaveLength(1);
  expect(answers.filter((a) => a.body.code === "TAG_ALREADY_EXISTS")).toHaveLength(99);
  const after = await countRows(db);
  for (const table of ["tags", "search_index", "chronicle_events", "search_outbox_events", "chronicle_outbox_events"])
    expect([table, after[table]]).toEqual([table, (before[table] ?? 0) + 1]);
});

const move = (id: string, parent: string | null) => send("PATCH", `/api/v1/tags/${id}`, { parent_tag_id: parent });

test("tags nest three deep; what is deeper or inside itself is refused, and null moves to the top", async () => {
  const [a, b, c, d] = await Promise.all(["na", "nb", "nc", "nd"].map((name) => create({ name })));
  expect((await move(b.id, a.id)).body).toMatchObject({ level: 1, parent_tag_id: a.id });
  expect((await move(c.id, b.id)).body).toMatchObject({ level: 2, parent_tag_id: b.id });
  expect(codeOf(await move(d.id, c.id))).toEqual([422, "TAG_INVALID_HIERARCHY"]);
  expect(codeOf(await move(a.id, c.id))).toEqual([422, "TAG_INVALID_HIERARCHY"]);
  expect(codeOf(await move(a.id, a.id))).toEqual([422, "TAG_INVALID_HIERARCHY"]);
  expect(codeOf(await move(a.id, a.id.toUpperCase()))).toEqual([422, "TAG_INVALID_HIERARCHY"]);
  // With its two levels below, a fits below nothing.
  expect(codeOf(await move(a.id, d.id))).toEqual([422, "TAG_INVALID_HIERARCHY"]);
  expect(codeOf(await move(d.id, "00000000-0000-7000-8000-000000000000"))).toEqual([404, "TAG_NOT_FOUND"]);
  expect((await move(b.id, null)).body).toMatchObject({ level: 0, parent_tag_id: null });
  expect((await send("GET", `/api/v1/tags/${c.id}`)).body).toMatchObject({
    level: 1,
    parent_tag_id: b.id,
    version: "3",
  });
});

test("the tags below a deleted one move up", async () => {
  const [a, b, c] = await Promise.all(["ua", "ub", "uc"].map((name) => create({ name })));
  await move(b.id, a.id);
  await move(c.id, b.id);
  await send("DELETE", `/api/v1/tags/${a.id}`);
  expect((await send("GET", `/api/v1/tags/${b.id}`)).body).toMatchObject({ level: 0, parent_tag_id: null });
  expect((await send("GET", `/api/v1/tags/${c.id}`)).body).toMatchObject({ level: 1, parent_tag_id: b.id });
});

test("concurrent moves and deletes make no cycle, no fourth level and no orphan", async () => {
  const ids: string[] = (await Promise.all(Array.from({ length: 8 }, (_, i) => create({ name: `race ${i}` })))).map(
    (t) => t.id,
  );
  for (let round = 0; round < 12; round++) {
    const at = (k: number) => ids[(round * 5 + k * 3) % ids.length] ?? "";
    const answers = await Promise.all([
      ...Array.from({ length: 8 }, (_, k) => move(at(k), at(k + 1))),
      ...Array.from({ length: 4 }, (_, k) => move(at(2 * k), null)),
    ]);
    for (const a of answers) expect([200, 422]).toContain(a.status);
  }
  await Promise.all([send("DELETE", `/api/v1/tags/${ids[0]}`), ...ids.slice(1).map((id) => move(id, ids[0] ?? ""))]);
  const wrong = await db.execute(sql`
    select t.id from tags t left join tags p on p.id = t.parent_tag_id
     where t.deleted_at is null and (t.level > 2 or t.level <> coalesce(p.level + 1, 0) or p.deleted_at is not null)`);
  expect([...wrong]).toEqual([]);
});

test("the request's trace is stored in canonical form, and one that breaks the rules is not", async () => {
  const traced = async (traceparent: string, tracestate: string) => {
    const { body } = await send(
      "POST",
      "/api/v1/tags",
      { name: `t ${crypto.randomUUID()}` },
      { traceparent, tracestate },
    );
    const [row] = await db.execute<{ traceparent: string; tracestate: string }>(
      sql`select traceparent, tracestate from search_outbox_events where entity_id = ${body.id}`,
    );
    return row;
  };
  const id = "0af7651916cd43dd8448eb211c80319c";
  expect(await traced(`00-${id}-b7ad6b7169203331-01`, " a=1 , b=2 ")).toEqual({
    traceparent: `00-${id}-b7ad6b7169203331-01`,
    tracestate: "a=1,b=2",
  });
  expect(await traced("00-zz-b7ad6b7169203331-01", "a=1")).toEqual({ traceparent: null, tracestate: null } as never);
  expect(await traced(`00-${"0".repeat(32)}-b7ad6b7169203331-01`, "a=1")).toEqual({
    traceparent: null,
    tracestate: null,
  } as never);
});

test("the chronicle names the request", async () => {
  const { body } = await send("POST", "/api/v1/tags", { name: "told" }, { "x-request-id": "my-request.1" });
  const [row] = await db.execute(
    sql`select correlation_id, source, event_type from chronicle_events where entity_id = ${body.id}`,
  );
  expect(row).toEqual({ correlation_id: "my-request.1", source: "api", event_type: "tag_created" });
});

test("workers are woken and events counted once per commit, and not when nothing was written", async () => {
  const before = api.woken.count;
  await create({ name: "woken" });
  await send("POST", "/api/v1/tags", { name: "woken" });
  await send("POST", "/api/v1/tags", { name: "" });
  expect(api.woken.count).toBe(before + 1);
  expect(await api.metrics()).toMatch(/outbox_produced_total\{[^}]*event_type="tag\.created"[^}]*\} \d+/);
});

test("rows, index, events and chronicle say the same after all of this", async () => {
  expect(await contradictions(db)).toEqual([]);
});

import { beforeAll, describe, expect, test } from "bun:test";
import { SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { end, newService, openTarget, real, tagsOf } from "./target.ts";

const { found, get, queryUrl, readTrace, search, send } = await openTarget();

/**
 * The queries of the operator documents and what may be asked beyond them. Two services share a trace: `api` made a request of 50 ms with a failed step of 10 ms
 * below it, `worker` works for 20 ms on what came of it, linked to its batch. `api` has another trace, of 2 ms, half a minute older.
 */
const api = newService();
const worker = newService();
const startedAt = Date.now() - 1000;
const older = startedAt - 30_000;
const batch = { traceId: "ba".repeat(16), spanId: "bb".repeat(8), traceFlags: 1 };
let shared = "";
let lone = "";

beforeAll(async () => {
  let carried: import("@opentelemetry/api").Span | undefined;
  await send(api, ({ start }) => {
    const attributes = {
      "wordloom.obs_schema": "labs-009-v2",
      "http.response.status_code": 201,
      "wordloom.labs.es_429.injected": true,
      ratio: 0.5,
      whole: 3.0,
      large: 12_345_678_901,
      small: 0.00001234,
      text: 'a:b c=d "e" ü 漢字',
      empty: "",
      list: ["a", "b"],
    };
    const request = start("POST /api/v1/tags", { kind: SpanKind.SERVER, startTime: startedAt, attributes });
    const step = start(
      "insert",
      { kind: SpanKind.CLIENT, startTime: startedAt + 5, attributes: { only: "step" } },
      request,
    );
    step.addEvent("exception", { "exception.message": "went wrong" }, startedAt + 6);
    step.setStatus({ code: SpanStatusCode.ERROR, message: "no" });
    end(step, startedAt + 5, 10);
    end(request, startedAt, 50);
    shared = request.spanContext().traceId;
    carried = request;
    const alone = start("GET /", { kind: SpanKind.SERVER, startTime: older, attributes: { only: "alone" } });
    alone.setStatus({ code: SpanStatusCode.OK });
    end(alone, older, 2);
    lone = alone.spanContext().traceId;
  });
  await send(worker, ({ start }) => {
    const options = { kind: SpanKind.CONSUMER, startTime: startedAt + 100, links: [{ context: batch }] };
    const attributes = { "wordloom.outbox_event_id": "4711", projection: "search", result: "ok" };
    end(start("outbox.process", { ...options, attributes }, carried), startedAt + 100, 20);
  });
});

const tags = (of: Record<string, unknown>) => JSON.stringify(of);

describe("services and operations", () => {
  test("are listed by name", async () => {
    const { json } = await get("/api/services");
    const { data, total } = json as { data: string[]; total: number };
    expect(data).toContain(api);
    expect(data).toEqual(data.toSorted());
    expect(total).toBe(data.length);
  });

  test("operations of a service are names in one place and objects in the other", async () => {
    const names = (await get(`/api/services/${api}/operations`)).json as { data: string[]; total: number };
    expect(names.data.toSorted()).toEqual(["GET /", "POST /api/v1/tags", "insert"]);
    expect(names.total).toBe(3);
    const { json } = await get("/api/operations", { service: worker });
    expect(json).toMatchObject({ data: [{ name: "outbox.process", spanKind: "" }], total: 1, errors: null });
  });

  test("of a service that is not known are null", async () => {
    const { status, json } = await get(`/api/services/${newService()}/operations`);
    expect([status, json]).toEqual([200, { data: null, total: 0, limit: 0, offset: 0, errors: null }]);
  });

  test("cannot be asked for without a service", async () => {
    const { status, json } = await get("/api/operations");
    expect(status).toBe(400);
    expect(json).toMatchObject({ data: null, errors: [{ code: 400, msg: "parameter 'service' is required" }] });
  });
});

describe("a search", () => {
  test("finds whole traces, also the spans of other services", async () => {
    const { status, body } = await search({ service: worker });
    expect(status).toBe(200);
    expect(body.data?.map(({ traceID, spans }) => [traceID, spans.length])).toEqual([[shared, 3]]);
  });

  test("answers in an envelope whose counts are always 0", async () => {
    const { body } = await search({ service: api });
    expect(body).toMatchObject({ total: 0, limit: 0, offset: 0, errors: null });
    expect((await search({ service: newService() })).body).toEqual({
      data: [],
      total: 0,
      limit: 0,
      offset: 0,
      errors: null,
    });
  });

  test("wants a service", async () => {
    for (const parameters of [{}, { service: "" }, { operation: "insert" }]) {
      const { status, body } = await search(parameters);
      expect(status).toBe(400);
      expect(body.errors).toEqual([{ code: 400, msg: "parameter 'service' is required" }]);
    }
  });

  test("takes a service by its whole name alone", async () => {
    expect(await found({ service: api.slice(0, -1) })).toEqual([]);
    expect(await found({ service: api.toUpperCase() })).toEqual([]);
  });

  test("by operation finds traces where this service did it", async () => {
    expect(await found({ service: api, operation: "insert" })).toEqual([shared]);
    expect(await found({ service: worker, operation: "insert" })).toEqual([]);
    expect(await found({ service: api, operation: "Insert" })).toEqual([]);
  });

  test("does not read lookback", async () => {
    expect(await found({ service: worker, lookback: "1h", limit: "20" })).toEqual([shared]);
    expect(await found({ service: worker, lookback: "nonsense" })).toEqual([shared]);
  });

  test("gives the latest first, at most as many as the limit", async () => {
    const ids = async (limit: string) =>
      (await search({ service: api, limit })).body.data?.map(({ traceID }) => traceID);
    expect(await ids("1")).toEqual([shared]);
    expect(await ids("0")).toEqual([shared, lone]);
    expect(await ids("-1")).toEqual([shared, lone]);
    for (const limit of ["x", "1.5", "99999999999"]) expect((await search({ service: api, limit })).status).toBe(400);
  });

  test("keeps to start and end, in microseconds, both included", async () => {
    const between = (start: number, to: number) =>
      found({ service: api, start: String(start * 1000), end: String(to * 1000) });
    expect(await between(older, older)).toEqual([lone]);
    expect(await between(older - 10, older - 1)).toEqual([]);
    expect(await between(startedAt + 1, startedAt + 5)).toEqual([shared]);
    expect(await between(older, startedAt)).toEqual([shared, lone].toSorted());
    const tagged = { service: api, tags: tags({ only: "step" }), start: String(startedAt * 1000) };
    expect(await found({ ...tagged, end: String((startedAt + 4) * 1000) })).toEqual([]);
    expect(await found({ ...tagged, end: String((startedAt + 5) * 1000) })).toEqual([shared]);
  });

  test("refuses times that are none", async () => {
    for (const bad of ["x", "1.5"]) {
      const { status, body } = await search({ service: api, start: bad });
      expect(status).toBe(400);
      expect(body.errors?.[0]?.msg).toBe(
        `unable to parse param 'start': strconv.ParseInt: parsing "${bad}": invalid syntax`,
      );
    }
    const { status, body } = await search({ service: api, start: "5", end: "2" });
    expect([status, body.errors?.[0]?.msg]).toEqual([500, "min start time is above max"]);
  });

  test("by duration looks at any span of the trace", async () => {
    const lasting = (parameters: Record<string, string>) => found({ service: api, ...parameters });
    expect(await lasting({ minDuration: "50ms" })).toEqual([shared]);
    expect(await lasting({ minDuration: "51ms" })).toEqual([]);
    expect(await lasting({ minDuration: "0.015s", maxDuration: "30000us" })).toEqual([shared]);
    expect(await lasting({ maxDuration: "2ms" })).toEqual([lone]);
    expect(await lasting({ maxDuration: "2ms", operation: "insert" })).toEqual([]);
    expect(await lasting({ minDuration: "1h1m1s1ms" })).toEqual([]);
    expect(await lasting({ minDuration: "0" })).toEqual([shared, lone].toSorted());
  });

  test.each([
    ["x", `time: invalid duration "x"`],
    ["5", `time: missing unit in duration "5"`],
    ["5y", `time: unknown unit "y" in duration "5y"`],
  ])("refuses the duration %s", async (minDuration, what) => {
    const { status, body } = await search({ service: api, minDuration });
    expect([status, body.errors?.[0]?.msg]).toEqual([400, `unable to parse param 'minDuration': ${what}`]);
  });

  test("refuses a longest duration below the shortest", async () => {
    const { status, body } = await search({ service: api, minDuration: "2ms", maxDuration: "1ms" });
    expect([status, body.errors?.[0]?.msg]).toEqual([400, "'maxDuration' should be greater than 'minDuration'"]);
  });
});

describe("a search by tags", () => {
  test.each([
    ["a string", { text: 'a:b c=d "e" ü 漢字' }],
    ["an empty string", { empty: "" }],
    ["an integer, as its digits", { "http.response.status_code": "201" }],
    ["a boolean, as its word", { "wordloom.labs.es_429.injected": "true" }],
    ["a double", { ratio: "0.5" }],
    ["a double that is a whole number", { whole: "3" }],
    ["a large number", { large: "12345678901" }],
    ["a small double", { small: "1.234e-05" }],
    ["a list, as JSON", { list: '["a","b"]' }],
    ["the kind of the span", { "span.kind": "client" }],
    ["the status of the span", { "otel.status_code": "ERROR" }],
    ["the status as error", { error: "true" }],
    ["what the status says", { "otel.status_description": "no" }],
    ["the scope", { "otel.scope.name": "wordloom.api" }],
    ["the resource", { "service.version": "1.2.3" }],
    ["an event", { event: "exception" }],
    ["an event's attribute", { "exception.message": "went wrong" }],
    ["two on one span", { only: "step", error: "true" }],
    ["two on different spans of the trace", { only: "step", "http.response.status_code": "201" }],
  ])("matches %s", async (_, wanted) => {
    expect(await found({ service: api, tags: tags(wanted) })).toContain(shared);
  });

  test.each([
    ["another case", { only: "Step" }],
    ["a part of the value", { only: "ste" }],
    ["another service's tag", { projection: "search" }],
    ["the service's own name", { "service.name": api }],
    ["a key that nobody has", { nobody: "" }],
    ["null as a word", { only: "null" }],
    ["two of two traces", { only: "alone", error: "true" }],
  ])("does not match %s", async (_, wanted) => {
    expect(await found({ service: api, tags: tags(wanted) })).not.toContain(shared);
  });

  test("of the operator documents find the event and its batch", async () => {
    const service = worker;
    const operation = "outbox.process";
    expect(
      await found({
        service,
        operation,
        lookback: "24h",
        limit: "20",
        tags: tags({ "wordloom.outbox_event_id": "4711" }),
      }),
    ).toEqual([shared]);
    for (const wanted of [{ projection: "search" }, { result: "ok" }, { "wordloom.obs_schema": "labs-009-v2" }])
      expect(await found({ service, operation, tags: tags(wanted) })).toEqual([shared]);
  });

  test("combines with an operation that another span of the trace has", async () => {
    expect(await found({ service: api, operation: "insert", tags: tags({ ratio: "0.5" }) })).toEqual([shared]);
    expect(await found({ service: api, operation: "GET /", tags: tags({ ratio: "0.5" }) })).toEqual([]);
  });

  test("may be written as tag=key:value, once or often", async () => {
    expect(await found({ service: api, tag: 'text:a:b c=d "e" ü 漢字' })).toEqual([shared]);
    const both = new URLSearchParams([
      ["service", api],
      ["tag", "only:step"],
      ["tag", "ratio:0.5"],
    ]);
    const reply = await fetch(`${queryUrl}/api/traces?${String(both)}`);
    expect(((await reply.json()) as { data: unknown[] }).data).toHaveLength(1);
    expect((await search({ service: api, tag: "only" })).body.errors?.[0]?.msg).toBe(
      "malformed 'tag' parameter, expecting key:value, received: only",
    );
  });

  test.each(["nope", "[]", '"x"', "", "{}x", '{"a":["x"]}', '{"a":{"b":1}}'])("refuses %p", async (text) => {
    const { status, body } = await search({ service: api, tags: text });
    expect(status).toBe(400);
    expect(body.errors?.[0]?.msg).toStartWith("malformed 'tags' parameter, cannot unmarshal JSON: ");
  });

  test("may be null, which asks for nothing", async () => {
    expect(await found({ service: api, tags: "null" })).toEqual([shared, lone].toSorted());
  });

  // The one difference: Jaeger refuses the bare true that the operator documents write.
  test(`with a bare true or number are ${real ? "refused" : "taken for the text that it shows"}`, async () => {
    for (const text of ['{"wordloom.labs.es_429.injected":true}', '{"http.response.status_code":201,"ratio":0.5}']) {
      const { status, body } = await search({ service: api, tags: text });
      expect(status).toBe(real ? 400 : 200);
      expect(body.data?.map(({ traceID }) => traceID)).toEqual(real ? undefined : [shared]);
    }
  });
});

describe("a trace", () => {
  test("has its spans with their times in microseconds, and their services as processes", async () => {
    const { traceID, spans, processes } = await readTrace(shared);
    expect(traceID).toBe(shared);
    const seen = spans.map((span) => [
      span.operationName,
      processes[span.processID]?.serviceName,
      span.startTime,
      span.duration,
    ]);
    expect(seen.toSorted(([a], [b]) => (String(a) < String(b) ? -1 : 1))).toEqual([
      ["POST /api/v1/tags", api, startedAt * 1000, 50_000],
      ["insert", api, (startedAt + 5) * 1000, 10_000],
      ["outbox.process", worker, (startedAt + 100) * 1000, 20_000],
    ]);
    for (const { tags: own } of Object.values(processes))
      expect(tagsOf(own)).toMatchObject({ "service.version": "1.2.3", "wordloom.obs_schema": "labs-009-v2" });
  });

  test("tells a span's attributes by type, kind and status among them, sorted by key", async () => {
    const { spans } = await readTrace(shared);
    const own = spans.find(({ operationName }) => operationName === "POST /api/v1/tags")?.tags ?? [];
    expect(own.map(({ key }) => key)).toEqual(own.map(({ key }) => key).toSorted());
    const wanted = [
      { key: "http.response.status_code", type: "int64", value: 201 },
      { key: "list", type: "string", value: '["a","b"]' },
      { key: "ratio", type: "float64", value: 0.5 },
      { key: "span.kind", type: "string", value: "server" },
      { key: "wordloom.labs.es_429.injected", type: "bool", value: true },
    ];
    for (const tag of wanted) expect(own).toContainEqual(tag);
    const step = spans.find(({ operationName }) => operationName === "insert");
    expect(tagsOf(step?.tags ?? [])).toMatchObject({
      error: true,
      "otel.status_code": "ERROR",
      "otel.status_description": "no",
    });
  });

  test("tells parents as CHILD_OF and links as FOLLOWS_FROM", async () => {
    const { spans } = await readTrace(shared);
    const of = (name: string) => spans.find(({ operationName }) => operationName === name);
    const parent = { refType: "CHILD_OF", traceID: shared, spanID: of("POST /api/v1/tags")?.spanID ?? "" };
    const link = { refType: "FOLLOWS_FROM", traceID: batch.traceId, spanID: batch.spanId };
    expect(of("POST /api/v1/tags")?.references).toEqual([]);
    expect(of("insert")?.references).toEqual([parent]);
    expect(of("outbox.process")?.references).toEqual([parent, link]);
  });

  test("tells events as logs", async () => {
    const { spans } = await readTrace(shared);
    expect(spans.find(({ operationName }) => operationName === "insert")?.logs).toEqual([
      {
        timestamp: (startedAt + 6) * 1000,
        fields: [
          { key: "event", type: "string", value: "exception" },
          { key: "exception.message", type: "string", value: "went wrong" },
        ],
      },
    ]);
  });

  test("can be had with several others by their ids, and what is not there is named", async () => {
    const ids = new URLSearchParams([
      ["traceID", shared],
      ["traceID", lone],
      ["traceID", "abc"],
    ]);
    const { data, errors } = (await (await fetch(`${queryUrl}/api/traces?${String(ids)}`)).json()) as {
      data: { traceID: string }[];
      errors: unknown;
    };
    expect(data.map(({ traceID }) => traceID)).toEqual([shared, lone]);
    expect(errors).toEqual([{ msg: "trace not found", traceID: "0000000000000abc" }]);
  });

  test("that is unknown is 404, and an id that is none is 400", async () => {
    for (const id of ["abc", "f".repeat(32)]) {
      const { status, json } = await get(`/api/traces/${id}`);
      expect(status).toBe(404);
      expect(json).toMatchObject({ data: null, errors: [{ code: 404, msg: "trace not found" }] });
    }
    for (const id of ["nope", "f".repeat(33)]) expect((await get(`/api/traces/${id}`)).status).toBe(400);
    expect((await get(`/api/traces/${shared}`, { start: "x" })).status).toBe(400);
    expect((await get(`/api/traces/${shared}`, { raw: "x" })).status).toBe(400);
    expect((await get(`/api/traces/${shared}`, { raw: "true" })).status).toBe(200);
  });
});

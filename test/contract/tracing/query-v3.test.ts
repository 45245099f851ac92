import { beforeAll, describe, expect, test } from "bun:test";
import { SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { end, newService, openTarget } from "./target.ts";

const { get, send } = await openTarget();

const service = newService();
const startedAt = Date.now() - 1000;
let traceId = "";

type Otlp = {
  readonly result: {
    readonly resourceSpans: readonly {
      readonly resource: { readonly attributes: readonly { key: string; value: unknown }[] };
      readonly scopeSpans: readonly {
        readonly scope: { name: string };
        readonly spans: readonly Record<string, unknown>[];
      }[];
    }[];
  };
};

beforeAll(async () => {
  await send(service, ({ start }) => {
    const link = { context: { traceId: "1".repeat(32), spanId: "2".repeat(16), traceFlags: 1 } };
    const root = start("root", {
      kind: SpanKind.SERVER,
      startTime: startedAt,
      attributes: { text: "x", n: 42, d: 0.5, b: true },
      links: [link],
    });
    const child = start("child", { startTime: startedAt + 1 }, root);
    child.addEvent("happened", { why: "so" }, startedAt + 2);
    child.setStatus({ code: SpanStatusCode.ERROR, message: "boom" });
    end(child, startedAt + 1, 5);
    end(root, startedAt, 20);
    traceId = root.spanContext().traceId;
  });
});

const iso = (ms: number) => new Date(ms).toISOString();
const window = { "query.start_time_min": iso(startedAt - 1000), "query.start_time_max": iso(startedAt + 1000) };
const spansOf = (json: unknown) =>
  (json as Otlp).result.resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans));

describe("v3", () => {
  test("lists services and operations", async () => {
    expect((await get("/api/v3/services")).json).toEqual({ services: expect.arrayContaining([service]) });
    expect((await get("/api/v3/operations", { service })).json).toEqual({
      operations: [{ name: "child" }, { name: "root" }],
    });
    expect((await get("/api/v3/operations")).json).toEqual({ operations: [] });
  });

  test("gives a trace as OTLP: ids in hex, times in nanoseconds as text, enums as numbers", async () => {
    const { status, json } = await get(`/api/v3/traces/${traceId}`);
    expect(status).toBe(200);
    const [root, child] = spansOf(json).toSorted((a) => (a["name"] === "root" ? -1 : 1));
    expect(root).toMatchObject({
      traceId,
      name: "root",
      kind: 2,
      startTimeUnixNano: `${startedAt}000000`,
      endTimeUnixNano: `${startedAt + 20}000000`,
      links: [{ traceId: "1".repeat(32), spanId: "2".repeat(16) }],
    });
    const attributes = [
      { key: "text", value: { stringValue: "x" } },
      { key: "n", value: { intValue: "42" } },
      { key: "d", value: { doubleValue: 0.5 } },
      { key: "b", value: { boolValue: true } },
    ];
    for (const attribute of attributes) expect(root?.["attributes"]).toContainEqual(attribute);
    expect(child).toMatchObject({
      parentSpanId: root?.["spanId"],
      status: { code: 2, message: "boom" },
      events: [
        {
          name: "happened",
          timeUnixNano: `${startedAt + 2}000000`,
          attributes: [{ key: "why", value: { stringValue: "so" } }],
        },
      ],
    });
    const [resource] = (json as Otlp).result.resourceSpans;
    expect(resource?.resource.attributes).toContainEqual({ key: "service.name", value: { stringValue: service } });
    expect(resource?.scopeSpans[0]?.scope.name).toBe("wordloom.api");
  });

  test("finds whole traces by service, operation and duration", async () => {
    const by = async (parameters: Record<string, string>) => {
      const { status, json } = await get("/api/v3/traces", { ...window, "query.service_name": service, ...parameters });
      return status === 200 ? spansOf(json).length : status;
    };
    expect(await by({})).toBe(2);
    expect(await by({ "query.operation_name": "child" })).toBe(2);
    expect(await by({ "query.operation_name": "nope" })).toBe(404);
    expect(await by({ "query.duration_min": "20ms" })).toBe(2);
    expect(await by({ "query.duration_min": "21ms" })).toBe(404);
    expect(await by({ "query.num_traces": "1" })).toBe(2);
  });

  test("answers 404 when there is nothing", async () => {
    for (const path of ["/api/v3/traces/abc", `/api/v3/traces/${"f".repeat(32)}`]) {
      const { status, json } = await get(path);
      expect([status, json]).toEqual([404, { error: { httpCode: 404, message: "No traces found" } }]);
    }
    const { status } = await get("/api/v3/traces", { ...window, "query.service_name": newService() });
    expect(status).toBe(404);
  });

  test.each([
    ["no window", {}, 400, "query.start_time_min and query.start_time_max are required"],
    [
      "a time that is none",
      { ...window, "query.start_time_min": "x" },
      400,
      "malformed parameter query.start_time_min: ",
    ],
    ["a number that is none", { ...window, "query.num_traces": "x" }, 400, "malformed parameter query.num_traces: "],
    [
      "a duration that is none",
      { ...window, "query.duration_min": "x" },
      400,
      "malformed parameter query.duration_min: ",
    ],
    ["an operation without a service", { ...window, "query.operation_name": "x" }, 500, "service name must be set"],
    [
      "a window that ends before it begins",
      { "query.service_name": "x", "query.start_time_min": iso(startedAt), "query.start_time_max": iso(startedAt - 1) },
      500,
      "min start time is above max",
    ],
  ])("refuses %s", async (_, parameters, httpCode, message) => {
    const { status, json } = await get("/api/v3/traces", parameters);
    expect(status).toBe(httpCode);
    expect(json).toEqual({ error: { httpCode, message: expect.stringContaining(message) } });
  });

  test("refuses an id that is none", async () => {
    const { status, json } = await get("/api/v3/traces/nope");
    expect(status).toBe(400);
    expect(json).toMatchObject({ error: { message: expect.stringContaining("malformed parameter trace_id: ") } });
    expect((await get(`/api/v3/traces/${traceId}`, { raw_traces: "x" })).status).toBe(400);
    expect((await get(`/api/v3/traces/${traceId}`, { start_time: "x" })).status).toBe(400);
  });
});

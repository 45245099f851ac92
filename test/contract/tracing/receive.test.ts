import { describe, expect, test } from "bun:test";
import { deflateSync, gzipSync, zstdCompressSync } from "node:zlib";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { SpanStatusCode } from "@opentelemetry/api";
import { newService, openTarget, tagsOf } from "./target.ts";

const { found, otlpUrl, readTrace, send } = await openTarget();

const json = { "content-type": "application/json" };
const protobuf = { "content-type": "application/x-protobuf" };

async function post(body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string>, method = "POST") {
  const reply = await fetch(`${otlpUrl}/v1/traces`, { method, headers, ...(method === "GET" ? {} : { body }) });
  return { status: reply.status, type: reply.headers.get("content-type"), bytes: await reply.bytes() };
}
const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** One span as OTLP/JSON, that ended now. */
function payload(service: string, span: Record<string, unknown> = {}): string {
  const now = BigInt(Date.now()) * 1_000_000n;
  const traceId = crypto.randomUUID().replaceAll("-", "");
  const base = {
    traceId,
    spanId: "b7ad6b7169203331",
    name: "work",
    startTimeUnixNano: `${now - 5_000_123n}`,
    endTimeUnixNano: `${now}`,
  };
  const resource = { attributes: [{ key: "service.name", value: { stringValue: service } }] };
  return JSON.stringify({ resourceSpans: [{ resource, scopeSpans: [{ spans: [{ ...base, ...span }] }] }] });
}

describe("the exporter", () => {
  test.each(["http/json", "http/protobuf"])(
    "of the product delivers by %s: what it sends is found at once",
    async (protocol) => {
      const service = newService();
      await send(service, ({ start }) => start("work").end(), { OTEL_EXPORTER_OTLP_PROTOCOL: protocol });
      expect(await found({ service })).toHaveLength(1);
    },
  );

  test("sends the same by both protocols", async () => {
    const read = async (protocol: string) => {
      const service = newService();
      await send(
        service,
        ({ start }) => {
          const attributes = {
            s: "ü 漢字 \u{1F600}",
            i: 42,
            d: 0.25,
            b: false,
            list: ["a", "b"],
            big: Number.MAX_SAFE_INTEGER,
          };
          const span = start("work", {
            attributes,
            links: [{ context: { traceId: "1".repeat(32), spanId: "2".repeat(16), traceFlags: 1 } }],
          });
          span.addEvent("event", { n: 1 });
          span.setStatus({ code: SpanStatusCode.ERROR, message: "boom" });
          span.end();
        },
        { OTEL_EXPORTER_OTLP_PROTOCOL: protocol },
      );
      const [id = ""] = await found({ service });
      const [span] = (await readTrace(id)).spans;
      const { "otel.scope.name": _, ...tags } = tagsOf(span?.tags ?? []);
      return {
        tags,
        links: span?.references,
        events: span?.logs.map(({ fields }) => tagsOf(fields)),
      };
    };
    const sent = await read("http/json");
    expect(sent.tags).toMatchObject({
      s: "ü 漢字 \u{1F600}",
      i: 42,
      d: 0.25,
      b: false,
      list: '["a","b"]',
      error: true,
    });
    expect(sent.links).toEqual([{ refType: "FOLLOWS_FROM", traceID: "1".repeat(32), spanID: "2".repeat(16) }]);
    expect(await read("http/protobuf")).toEqual(sent);
  });
});

describe("an answer", () => {
  test("in JSON says that all was taken", async () => {
    const { status, type, bytes } = await post(payload(newService()), json);
    expect([status, type, textOf(bytes)]).toEqual([200, "application/json", '{"partialSuccess":{}}']);
    expect((await post("{}", json)).status).toBe(200);
    expect((await post(payload(newService()), { "content-type": "application/json; charset=utf-8" })).status).toBe(200);
  });

  test("in protobuf says that all was taken", async () => {
    const { status, type, bytes } = await post(new Uint8Array(), protobuf);
    expect([status, type, [...bytes]]).toEqual([200, "application/x-protobuf", [10, 0]]);
  });

  test.each(["GET", "PUT", "DELETE"])("to %s names the method that is there", async (method) => {
    const { status, bytes } = await post("x", json, method);
    expect([status, textOf(bytes)]).toEqual([405, "405 method not allowed, supported: [POST]"]);
  });

  test.each([{ "content-type": "text/plain" }, { "content-type": "application/grpc" }])(
    "to another media type names the two that are there",
    async (headers) => {
      const { status, bytes } = await post("x", headers);
      expect(status).toBe(415);
      expect(textOf(bytes)).toBe("415 unsupported media type, supported: [application/json, application/x-protobuf]");
    },
  );

  test.each([
    ["no JSON", "{nope"],
    ["a list", "[]"],
    ["nothing", ""],
    ["a trace id that is no hex", payload("x", { traceId: "zz" })],
    ["a trace id that is too short", payload("x", { traceId: "0af7" })],
    ["a span id that is too long", payload("x", { spanId: "b7ad6b716920333100" })],
    ["a time that is no number", payload("x", { startTimeUnixNano: "now" })],
    ["a name that is no string", payload("x", { name: 1 })],
    ["attributes that are no list", payload("x", { attributes: {} })],
    ["an attribute that is no value", payload("x", { attributes: [{ key: "k", value: { intValue: "x" } }] })],
  ])("to JSON that cannot be read is a status of code 3: %s", async (_, body) => {
    const { status, type, bytes } = await post(body, json);
    expect([status, type]).toEqual([400, "application/json"]);
    expect(JSON.parse(textOf(bytes))).toEqual({ code: 3, message: expect.any(String) });
  });

  test.each([
    ["a varint without end", [255, 255, 255]],
    ["a message that is longer than the rest", [10, 5, 1]],
    ["a field of another type", [10, 2, 8, 1]],
    ["a trace id of three bytes", [10, 9, 18, 7, 18, 5, 10, 3, 1, 2, 3]],
  ])("to protobuf that cannot be read is a status of code 3: %s", async (_, body) => {
    const { status, type, bytes } = await post(new Uint8Array(body), protobuf);
    expect([status, type]).toEqual([400, "application/x-protobuf"]);
    expect(bytes.slice(0, 2)).toEqual(new Uint8Array([8, 3]));
  });

  test("elsewhere is 404", async () => {
    for (const path of ["/v1/nope", "/v1/traces/"]) {
      const reply = await fetch(`${otlpUrl}${path}`, { method: "POST", headers: json, body: "{}" });
      expect(reply.status).toBe(404);
    }
  });
});

describe("a body", () => {
  test.each([
    ["gzip", gzipSync],
    ["deflate", deflateSync],
    ["zstd", zstdCompressSync],
  ])("may be packed with %s", async (encoding, pack) => {
    const service = newService();
    const body = new Uint8Array(pack(payload(service)));
    expect((await post(body, { ...json, "content-encoding": encoding })).status).toBe(200);
    expect(await found({ service })).toHaveLength(1);
  });

  test("that is packed otherwise, or broken, is refused", async () => {
    for (const encoding of ["gzip", "br"])
      expect((await post("zz", { ...json, "content-encoding": encoding })).status).toBe(400);
    const cut = new Uint8Array(gzipSync(payload(newService())).subarray(0, 40));
    expect((await post(cut, { ...json, "content-encoding": "gzip" })).status).toBe(400);
  });

  test("of more than 20 MiB is refused, packed or not", async () => {
    const large = payload(newService(), { name: "x".repeat(21 * 1024 * 1024) });
    expect((await post(large, json)).status).toBe(400);
    expect((await post(new Uint8Array(gzipSync(large)), { ...json, "content-encoding": "gzip" })).status).toBe(400);
  });
});

describe("a span in JSON", () => {
  test("may have its numbers as numbers or strings, its enums as numbers or names, and fields that nobody knows", async () => {
    const service = newService();
    const value = (given: unknown) => ({ key: "n", value: given });
    const spans = [
      { kind: 3, status: { code: 2 }, attributes: [value({ intValue: 7 })] },
      {
        kind: "SPAN_KIND_CLIENT",
        status: { code: "STATUS_CODE_ERROR" },
        attributes: [value({ intValue: "7" })],
        nobody: { knows: 1 },
      },
    ];
    for (const span of spans) expect((await post(payload(service, span), json)).status).toBe(200);
    const tags = JSON.stringify({ n: "7", "span.kind": "client", error: "true" });
    expect(await found({ service, tags })).toHaveLength(2);
  });

  test("that is sent twice is there once", async () => {
    const service = newService();
    const body = payload(service);
    await post(body, json);
    await post(body, json);
    const [id = ""] = await found({ service });
    expect((await readTrace(id)).spans).toHaveLength(1);
  });

  test("may come without a service: it is filed under a name that says so", async () => {
    const traceId = crypto.randomUUID().replaceAll("-", "");
    const span = { traceId, spanId: "b7ad6b7169203331", name: "lost", startTimeUnixNano: "1", endTimeUnixNano: "2" };
    await post(JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans: [span] }] }] }), json);
    const { processes } = await readTrace(traceId);
    expect(Object.values(processes).map(({ serviceName }) => serviceName)).toEqual(["missing-service-name"]);
  });
});

test("a span in protobuf may have fields that nobody knows", async () => {
  const service = newService();
  const bytes = (...parts: (readonly [number, Uint8Array])[]) => {
    const writer = new BinaryWriter();
    for (const [field, value] of parts) writer.tag(field, WireType.LengthDelimited).bytes(value);
    return writer.finish();
  };
  const text = (value: string) => new TextEncoder().encode(value);
  const resource = bytes([1, bytes([1, text("service.name")], [2, bytes([1, text(service)])])]);
  const id = crypto.getRandomValues(new Uint8Array(16));
  const span = new BinaryWriter()
    .raw(bytes([1, id], [2, id.slice(0, 8)], [5, text("work")], [99, text("nobody")]))
    .tag(7, WireType.Bit64)
    .fixed64(BigInt(Date.now()) * 1_000_000n)
    .tag(8, WireType.Bit64)
    .fixed64(BigInt(Date.now()) * 1_000_000n)
    .tag(98, WireType.Varint)
    .uint32(7)
    .finish();
  const body = bytes([1, bytes([1, resource], [2, bytes([2, span])], [77, text("nobody")])]);
  expect((await post(body, protobuf)).status).toBe(200);
  expect(await found({ service, operation: "work" })).toEqual([id.toHex()]);
});

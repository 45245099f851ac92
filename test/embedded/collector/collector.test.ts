import { Database } from "bun:sqlite";
import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { type Collector, type CollectorOptions, startCollector } from "../../../src/embedded/collector/collector.ts";
import { MalformedPayload } from "../../../src/embedded/collector/otlp.ts";
import { decodeJson } from "../../../src/embedded/collector/otlp-json.ts";
import { decodeProtobuf } from "../../../src/embedded/collector/otlp-protobuf.ts";
import { freePort, start as startCommand, wordloom } from "../../support/cli.ts";
import { rejection } from "../../support/library.ts";
import { until } from "../../support/until.ts";

const folder = await mkdtemp(join(tmpdir(), "wordloom-collector-"));
afterAll(() => rm(folder, { recursive: true }));
const running: Collector[] = [];
afterEach(() => Promise.all(running.splice(0).map((collector) => collector.stop())));

async function start(options: Partial<CollectorOptions> = {}): Promise<Collector> {
  const collector = await startCollector({ dataDir: ":memory:", port: 0, ...options });
  running.push(collector);
  return collector;
}

let sent = 0;
/** Sends spans, each a trace of its own that began a microsecond after the one before; returns the ids. */
async function send(url: string, count: number, service = "svc", name = "work"): Promise<string[]> {
  const ids = Array.from({ length: count }, () => crypto.randomUUID().replaceAll("-", ""));
  const spans = ids.map((traceId) => {
    sent += 1;
    const at = String(BigInt(Date.now()) * 1_000_000n + BigInt(sent) * 1000n - 10_000_000_000n);
    return { traceId, spanId: "b7ad6b7169203331", name, startTimeUnixNano: at, endTimeUnixNano: at };
  });
  const resource = { attributes: [{ key: "service.name", value: { stringValue: service } }] };
  const body = JSON.stringify({ resourceSpans: [{ resource, scopeSpans: [{ spans }] }] });
  const reply = await fetch(`${url}/v1/traces`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  expect(reply.status).toBe(200);
  return ids;
}

async function ask(url: string, path: string): Promise<unknown[]> {
  const { data } = (await (await fetch(`${url}${path}`)).json()) as { data: unknown[] | null };
  return data ?? [];
}
const held = async (url: string, service = "svc") =>
  (await ask(url, `/api/traces?service=${service}&limit=100000`)).map(
    (trace) => (trace as { traceID: string }).traceID,
  );

describe("the trace store", () => {
  test("keeps its spans over a restart", async () => {
    const dataDir = join(folder, "restart");
    const first = await start({ dataDir });
    const ids = await send(first.url, 20);
    await first.stop();
    const second = await start({ dataDir });
    expect((await held(second.url)).toSorted()).toEqual(ids.toSorted());
    expect(await ask(second.url, "/api/services/svc/operations")).toEqual(["work"]);
  });

  test("keeps the last spans that came, and a hundredth more at most", async () => {
    const { url } = await start({ maxSpans: 200 });
    await send(url, 30, "old", "gone");
    const ids: string[] = [];
    for (let i = 0; i < 10; i++) ids.push(...(await send(url, 50)));
    const kept = await held(url);
    expect(kept.length).toBeGreaterThanOrEqual(200);
    expect(kept.length).toBeLessThanOrEqual(202);
    expect(kept.toSorted()).toEqual(ids.slice(-kept.length).toSorted());
    expect(await held(url, "old")).toEqual([]);
    expect(await ask(url, "/api/services")).toEqual(["svc"]);
    expect(await ask(url, "/api/services/old/operations")).toEqual([]);
  });

  test("keeps a service and an operation as long as one span of it", async () => {
    const { url } = await start({ maxSpans: 100 });
    await send(url, 1, "svc", "first");
    await send(url, 99);
    await send(url, 1, "svc", "first");
    await send(url, 60);
    expect(await ask(url, "/api/services/svc/operations")).toEqual(["first", "work"]);
    expect(await ask(url, "/api/traces?service=svc&operation=first")).toHaveLength(1);
  });

  test("answers the same on both ports", async () => {
    const { url, queryUrl } = await start({ queryPort: 0 });
    expect(url).not.toBe(queryUrl);
    await send(queryUrl, 1);
    expect(await held(url)).toEqual(await held(queryUrl));
  });

  test("takes a search as curl sends one without -G: as a form", async () => {
    const { url } = await start();
    const [id] = await send(url, 1);
    await send(url, 1, "other");
    const form = new URLSearchParams({ service: "svc", limit: "20" });
    const answer = await fetch(`${url}/api/traces`, { method: "POST", body: form });
    const { data } = (await answer.json()) as { data: { traceID: string }[] };
    expect(data.map(({ traceID }) => traceID)).toEqual([id ?? ""]);
    expect((await fetch(`${url}/api/services`, { method: "POST", body: form })).status).toBe(405);
    expect((await fetch(`${url}/api/traces`, { method: "POST", body: "{}" })).status).toBe(405);
  });

  test("stops twice without harm, and its ports are free again", async () => {
    const collector = await start({ port: freePort() });
    await Promise.all([collector.stop(), collector.stop()]);
    await start({ port: Number(new URL(collector.url).port) });
  });

  test("says that a port is in use, and opens nothing then", async () => {
    const { url } = await start();
    const dataDir = join(folder, "busy");
    const port = Number(new URL(url).port);
    expect(await rejection(startCollector({ dataDir, port }))).toMatchObject({ code: "EADDRINUSE" });
    expect(await rejection(startCollector({ dataDir, port: 0, queryPort: port }))).toMatchObject({
      code: "EADDRINUSE",
    });
    await start({ dataDir });
  });

  test("says that a folder is in use by another process", async () => {
    const dataDir = join(folder, "shared");
    const { url } = await start({ dataDir });
    await send(url, 1);
    expect(String(await rejection(startCollector({ dataDir, port: 0 })))).toContain("in use by another process");
  });

  test("refuses data that a newer version wrote", async () => {
    const dataDir = join(folder, "newer");
    await (await start({ dataDir })).stop();
    const db = new Database(join(dataDir, "traces.sqlite"));
    db.run("pragma user_version = 99");
    db.close();
    expect(String(await rejection(startCollector({ dataDir, port: 0 })))).toContain("newer version");
  });

  test("serves its pages under a policy that allows nothing from elsewhere", async () => {
    const { url } = await start();
    for (const path of ["/", "/search?service=x", "/trace/abc"]) {
      const page = await fetch(`${url}${path}`);
      expect(page.headers.get("content-security-policy")).toStartWith("default-src 'none'; script-src 'self'");
      expect(page.headers.get("x-content-type-options")).toBe("nosniff");
    }
    expect((await fetch(`${url}/trace/abc`)).status).toBe(404);
    expect((await fetch(`${url}/nope`)).status).toBe(404);
    expect((await fetch(`${url}/`, { method: "POST" })).status).toBe(405);
    const found = await fetch(`${url}/search?traceID=ABC`, { redirect: "manual" });
    expect([found.status, found.headers.get("location")]).toEqual([303, "/trace/ABC"]);
    const script = await fetch(`${url}/assets/page.js`);
    expect(script.headers.get("content-type")).toStartWith("text/javascript");
    expect(await script.text()).not.toContain(": HTMLDetailsElement");
    expect((await fetch(`${url}/assets/style.css`)).status).toBe(200);
  });
});

describe("a payload", () => {
  const readable = (read: () => unknown) => {
    try {
      read();
    } catch (fault) {
      expect(fault).toBeInstanceOf(MalformedPayload);
    }
  };

  test("of any bytes is read or refused, never more", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => readable(() => decodeProtobuf(bytes))),
      { numRuns: 2000 },
    );
    fc.assert(
      fc.property(fc.json({ maxDepth: 6 }), (text) => readable(() => decodeJson(text))),
      { numRuns: 500 },
    );
    fc.assert(
      fc.property(fc.string(), (text) => readable(() => decodeJson(text))),
      { numRuns: 500 },
    );
  });

  test("of the shape of spans is read or refused, whatever lies in it", () => {
    const anything = fc.anything({ maxDepth: 2 });
    const field = fc.constantFrom(
      "traceId",
      "spanId",
      "parentSpanId",
      "name",
      "kind",
      "attributes",
      "events",
      "links",
      "status",
      "flags",
    );
    fc.assert(
      fc.property(fc.dictionary(field, anything), (span) => {
        const text = JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans: [span] }] }] }, (_, value: unknown) =>
          typeof value === "bigint" ? String(value) : value,
        );
        readable(() => decodeJson(text));
      }),
      { numRuns: 500 },
    );
  });

  test("nested without end is refused", () => {
    const deep = `${'{"arrayValue":{"values":['.repeat(20_000)}{}${"]}}".repeat(20_000)}`;
    const text = `{"resourceSpans":[{"resource":{"attributes":[{"key":"k","value":${deep}}]}}]}`;
    expect(() => decodeJson(text)).toThrow(MalformedPayload);
  });
});

describe("wordloom collector", () => {
  test("runs until SIGTERM and says where", async () => {
    const data = join(folder, "command");
    const child = startCommand(["collector", "--port", "0", "--query-port", "0"], { WORDLOOM_DATA_DIR: data });
    let printed = "";
    const reading = (async () => {
      for await (const chunk of child.stdout) printed += new TextDecoder().decode(chunk);
    })();
    await until("it says where it is", () => printed.includes("\n") || child.exitCode !== null);
    const [, url = "", queryUrl = ""] = /spans to (\S+), traces at (\S+)/.exec(printed) ?? [];
    const [id = ""] = await send(url, 1);
    expect(await held(queryUrl)).toEqual([id]);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    await reading;
    expect(await Bun.file(join(data, "traces", "traces.sqlite")).exists()).toBe(true);
  });

  test("names the port that is in use, with the remedy", async () => {
    const { url } = await start();
    const { code, err } = await wordloom(["collector", "--memory", "--port", new URL(url).port, "--query-port", "0"]);
    expect(code).toBe(1);
    expect(err).toContain("EMBEDDED_COLLECTOR_PORT");
  });

  test("notices a port in use with NODE_ENV=production too", async () => {
    const at = (port: string) =>
      startCommand(["collector", "--memory", "--port", port, "--query-port", "0"], { NODE_ENV: "production" });
    const printed = async ({ stdout }: ReturnType<typeof at>) =>
      new TextDecoder().decode((await stdout.getReader().read()).value);
    const first = at("0");
    const [, port = ""] = /spans to http:\/\/127\.0\.0\.1:(\d+)/.exec(await printed(first)) ?? [];
    const second = at(port);
    try {
      expect(await printed(second)).toBe("");
      expect(await second.exited).toBe(1);
      expect(await second.stderr.text()).toContain(`port ${port} or 0 of the trace store is in use`);
    } finally {
      for (const child of [first, second]) child.kill("SIGKILL");
    }
  });

  test("refuses a count that is none", async () => {
    const { code, err } = await wordloom(["collector", "--max-spans", "0"]);
    expect(code).toBe(2);
    expect(err).toContain("whole number");
  });
});

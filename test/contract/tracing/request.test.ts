import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { start } from "../../support/cli.ts";
import { testDatabase } from "../../support/postgres.ts";
import { until } from "../../support/until.ts";
import { newService, openTarget, tagsOf } from "./target.ts";

/** One request to the running product, and all that is found of it afterwards. */

setDefaultTimeout(60_000);
const { otlpUrl, readTrace } = await openTarget();
const database = await testDatabase();
const folder = await mkdtemp(join(tmpdir(), "wordloom-request-"));
await chmod(folder, 0o755);
afterAll(() => rm(folder, { recursive: true }));

test("a write is ONE trace: the caller's, with the server span, its statements below it, and what both projections made of it", async () => {
  const service = newService();
  const up = start(["up", "--port", "0", "--no-welcome"], {
    WORDLOOM_ENV: "test",
    DATABASE_URL: database.url,
    WORDLOOM_DATA_DIR: folder,
    EMBEDDED_ELASTIC_PORT: "0",
    WORDLOOM_TRACING_ENABLED: "1",
    OTEL_EXPORTER_OTLP_ENDPOINT: otlpUrl,
    OTEL_SERVICE_NAME: service,
  });
  let said = "";
  const reading = (async () => {
    for await (const chunk of up.stdout.pipeThrough(new TextDecoderStream())) said += chunk;
  })();
  const url = await until("it is up", () => /wordloom is up at (\S+)/.exec(said)?.[1], 30_000);
  const traceId = crypto.randomUUID().replaceAll("-", "");
  const written = await fetch(`${url}/api/v1/tags`, {
    method: "POST",
    headers: { traceparent: `00-${traceId}-b7ad6b7169203331-01` },
    body: JSON.stringify({ name: "one trace", color: "#FFFFFF" }),
  });
  expect(written.status).toBe(201);
  const find = () => readTrace(traceId).catch(() => undefined);
  await until("both projections are in the trace", async () => {
    const spans = (await find())?.spans ?? [];
    return spans.filter(({ operationName }) => operationName === "outbox.process").length === 2 && spans.length >= 4;
  });
  const page = await (await fetch(`${url}/metrics`)).text();
  up.kill("SIGTERM");
  expect(await up.exited).toBe(0);
  await reading;

  const { spans } = await readTrace(traceId);
  const server = spans.find(({ operationName }) => operationName === "POST /api/v1/tags");
  const parentOf = (span: (typeof spans)[number]) =>
    span.references.find(({ refType, traceID }) => refType === "CHILD_OF" && traceID === traceId)?.spanID;
  const below = spans.filter((span) => parentOf(span) === server?.spanID);
  expect(below.map(({ operationName }) => operationName).toSorted()).toEqual([
    "INSERT tags INSERT search_index INSERT chronicle_events INSERT search_outbox_events_live INSERT chronicle_outbox_events_live",
    "outbox.process",
    "outbox.process",
  ]);
  expect(spans).toHaveLength(4);
  expect(tagsOf(server?.tags ?? [])).toMatchObject({
    "span.kind": "server",
    "http.request.method": "POST",
    "http.route": "/api/v1/tags",
    "http.response.status_code": 201,
    "url.path": "/api/v1/tags",
    "url.scheme": "http",
    "server.address": "127.0.0.1",
    "server.port": Number(new URL(url).port),
  });
  for (const span of below.filter(({ operationName }) => operationName !== "outbox.process"))
    expect(tagsOf(span.tags)).toMatchObject({
      "span.kind": "client",
      "db.system.name": "postgresql",
      "db.namespace": `${database.name}|public`,
      "db.query.summary": span.operationName,
    });
  const told = JSON.stringify(spans);
  for (const value of ["one trace", "FFFFFF"]) expect(told).not.toContain(value);

  for (const pool of ["wordloom-up", "wordloom-search", "wordloom-chronicle", "wordloom-health"]) {
    expect(page).toMatch(new RegExp(`^db_client_connections\\{pool="${pool}",state="(used|idle)"\\} \\d+$`, "m"));
    expect(page).toMatch(new RegExp(`^db_client_connection_max\\{pool="${pool}"\\} [1-9]\\d*$`, "m"));
    expect(page).toMatch(new RegExp(`^db_client_connection_pending_requests\\{pool="${pool}"\\} \\d+$`, "m"));
  }
});

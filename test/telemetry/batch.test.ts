import { afterAll, expect, test } from "bun:test";
import { Client, HttpConnection } from "@elastic/elasticsearch";
import type { ReadableSpan } from "@opentelemetry/sdk-trace-base";
import { sql } from "drizzle-orm";
import { readConfig } from "../../src/config.ts";
import { openWakeUps } from "../../src/outbox/wake.ts";
import { startProjection } from "../../src/projection/start.ts";
import { obsSchema } from "../../src/telemetry/keys.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { openMetrics } from "../../src/telemetry/metrics.ts";
import { openTracing } from "../../src/telemetry/tracing.ts";
import { openApi } from "../support/api.ts";
import { testDatabase } from "../support/postgres.ts";
import { spanMemory } from "../support/telemetry.ts";
import { until } from "../support/until.ts";

const testbed = await testDatabase();
const database = testbed.open();
afterAll(() => database.close());

const env = { WORDLOOM_ENV: "test", WORDLOOM_TRACING_ENABLED: "1", LOG_LEVEL: "debug", LOG_JSON: "1" };
const config = readConfig(env);

/** Fifty callers, each in a trace of its own. */
const callers = Array.from({ length: 50 }, (_, i) => {
  const number = String(i + 10);
  const [traceId, parentId] = [`aaaa${number}`.padEnd(32, "0"), `bb${number}`.padEnd(16, "0")];
  return { name: `tag ${number}`, traceId, parentId, traceparent: `00-${traceId}-${parentId}-01` };
});

const api = spanMemory();
const worker = spanMemory();
const logged: Record<string, unknown>[] = [];
const apiLines: Record<string, unknown>[] = [];

/** Writes one tag for each caller, then lets one worker take all of them in one batch. */
async function run(): Promise<void> {
  const testApi = openApi(database.db, { env, exporter: api });
  const answers = await Promise.all(
    callers.map(({ name, traceparent }) =>
      testApi.send("POST", "/api/v1/tags", { name, color: "#FFFFFF" }, { traceparent }),
    ),
  );
  expect(answers.map(({ status }) => status)).toEqual(callers.map(() => 201));
  for (const line of testApi.logged) apiLines.push(JSON.parse(line) as Record<string, unknown>);
  const wakeUps = openWakeUps(database);
  const stop = new AbortController();
  const tracing = openTracing(config, "chronicle", "test", () => undefined, worker);
  const log = openLog(config, "worker", {
    write: (line: string) => void logged.push(JSON.parse(line) as Record<string, unknown>),
  });
  const { done } = startProjection(
    "chronicle",
    {
      config,
      db: database.db,
      healthDb: database.db,
      wakeUps,
      // The chronicle lives in Postgres: nobody calls here.
      client: new Client({ node: "http://127.0.0.1:1", Connection: HttpConnection }),
      index: "none",
      workerId: "w1",
    },
    { log, metrics: openMetrics("worker"), tracing },
    stop.signal,
  );
  await until("all are processed", async () => {
    const [row] = await database.db.execute<{ open: number }>(
      sql`select count(*)::int as open from chronicle_outbox_events where status <> 'done'`,
    );
    return row?.open === 0;
  });
  stop.abort();
  await done;
  await wakeUps.close();
  await tracing.close();
  await until("the API's spans are out", () => api.spans.length >= callers.length);
}
await run();

const named = (spans: readonly ReadableSpan[], name: string) => spans.filter((span) => span.name === name);
const server = named(api.spans, "POST /api/v1/tags");
const processed = named(worker.spans, "outbox.process");
const batches = named(worker.spans, "projection.process_batch");
const idOf = (span: ReadableSpan) => `${span.spanContext().traceId}/${span.spanContext().spanId}`;

test("each request continues its caller's trace", () => {
  const seen = server.map((span) => `${span.spanContext().traceId}/${span.parentSpanContext?.spanId}`);
  expect(seen.toSorted()).toEqual(callers.map(({ traceId, parentId }) => `${traceId}/${parentId}`));
});

test("each event is processed in the trace of the request that made it, below its server span", async () => {
  const requests = new Map(server.map((span) => [span.spanContext().traceId, span]));
  const written = await database.db.execute<{ id: string; name: string }>(sql`
    select o.id::text, t.name from chronicle_outbox_events o
      join chronicle_events c on c.id = o.entity_id join tags t on t.id = c.entity_id`);
  const nameOf = new Map(written.map(({ id, name }) => [id, name]));
  expect(processed).toHaveLength(50);
  for (const span of processed) {
    const { traceId } = span.spanContext();
    expect(span.parentSpanContext?.spanId).toBe(requests.get(traceId)?.spanContext().spanId);
    const event = String(span.attributes["wordloom.outbox_event_id"]);
    expect(nameOf.get(event)).toBe(callers.find((caller) => caller.traceId === traceId)?.name);
  }
});

test("the batch is one span, in a trace of its own, that links to each producer", () => {
  expect(batches).toHaveLength(1);
  const [batch] = batches;
  const links = batch?.links.map(({ context }) => `${context.traceId}/${context.spanId}`) ?? [];
  expect(links.toSorted()).toEqual(server.map(idOf).toSorted());
  expect(callers.map(({ traceId }) => traceId)).not.toContain(batch?.spanContext().traceId);
  expect(batch?.attributes).toMatchObject({ batch_size: 50, success_count: 50, failure_count: 0, result: "ok" });
});

test("each event's span links to its batch and names it", () => {
  for (const span of processed) {
    expect(span.links.map(({ context }) => `${context.traceId}/${context.spanId}`)).toEqual(batches.map(idOf));
    expect(span.attributes["wordloom.claim_batch_id"]).toBe(batches[0]?.attributes["wordloom.claim_batch_id"]);
  }
});

test("loop, claim and batch are one tree, and only of polls that found work", () => {
  const loops = named(worker.spans, "outbox_worker.loop");
  const claims = named(worker.spans, "outbox.claim_batch");
  expect([loops.length, claims.length]).toEqual([1, 1]);
  for (const span of [...claims, ...batches])
    expect(span.parentSpanContext?.spanId).toBe(loops[0]?.spanContext().spanId);
  expect(loops[0]?.parentSpanContext).toBeUndefined();
});

test("every span and every log line says by which schema its keys are to be read", () => {
  for (const span of [...api.spans, ...worker.spans]) expect(span.attributes["wordloom.obs_schema"]).toBe(obsSchema);
  for (const line of [...apiLines, ...logged]) expect(line["obs_schema"]).toBe(obsSchema);
});

test("the log lines of one event carry its trace, the worker's its own span", () => {
  const lines = logged.filter((line) => line["event"] === "outbox.process");
  expect(lines).toHaveLength(50);
  for (const line of lines) {
    const span = processed.find(
      (one) => String(one.attributes["wordloom.outbox_event_id"]) === line["outbox_event_id"],
    );
    expect([line["trace_id"], line["span_id"]]).toEqual([span?.spanContext().traceId, span?.spanContext().spanId]);
  }
  const answered = apiLines.filter((line) => line["event"] === "http.response");
  expect(answered.map((line) => String(line["trace_id"])).toSorted()).toEqual(callers.map(({ traceId }) => traceId));
});

import { afterAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { projections } from "../../../src/events.ts";
import { obsSchema } from "../../../src/telemetry/keys.ts";
import { openStage } from "../../support/stage.ts";
import { until } from "../../support/until.ts";
import { type JaegerSpan, type JaegerTrace, openTarget, tagsOf } from "./target.ts";

/**
 * What the product's own processes send: fifty callers, each in a trace of its own, write before any worker is there, so that each projection takes all of them in one batch;
 * then one more request comes in without a trace, and its document is refused once.
 */
const { found, otlpUrl, readTrace, search } = await openTarget();
const stage = await openStage({ WORDLOOM_TRACING_ENABLED: "1", OTEL_EXPORTER_OTLP_ENDPOINT: otlpUrl });
afterAll(() => stage.close(), 60_000);

const services = {
  api: "wordloom-api",
  search: "wordloom-search-outbox-worker",
  chronicle: "wordloom-chronicle-outbox-worker",
} as const;
const queues = [
  ["search", services.search],
  ["chronicle", services.chronicle],
] as const;

const hex = (length: number) => crypto.randomUUID().replaceAll("-", "").slice(0, length);
const callers = Array.from({ length: 50 }, (_, i) => {
  const [traceId, parentId] = [hex(32), hex(16)];
  return { name: `tag ${i}`, traceId, parentId, traceparent: `00-${traceId}-${parentId}-01` };
});

/** A real Jaeger keeps what earlier runs sent. */
const since = { start: String(Date.now() * 1000) };
const api = await stage.serve();
const write = (name: string, headers: Record<string, string> = {}) =>
  fetch(`${api.url}/api/v1/tags`, { method: "POST", headers, body: JSON.stringify({ name, color: "#FFFFFF" }) });

async function waiting(): Promise<number> {
  const [row] = await stage.db.execute<{ open: number }>(sql`
    select (select count(*) from search_outbox_events where status <> 'done')::int
         + (select count(*) from chronicle_outbox_events where status <> 'done')::int as open`);
  return row?.open ?? -1;
}

const answers = await Promise.all(callers.map(({ name, traceparent }) => write(name, { traceparent })));
expect(answers.map(({ status }) => status)).toEqual(callers.map(() => 201));
// The fifty pass; of the one after them the first send is refused, the second passes.
const worker = await stage.work("w1", { OUTBOX_EXPERIMENT_ES_429_EVERY_N: String(callers.length + 1) });
await until("the fifty to be done", async () => (await waiting()) === 0);
expect((await write("refused once")).status).toBe(201);
await until("the last one to be done", async () => (await waiting()) === 0);

type Line = Readonly<Record<string, unknown>>;
const linesOf = (process: { readonly lines: readonly string[] }): Line[] =>
  process.lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Line);
const told = (lines: readonly Line[], event: string) => lines.filter((line) => line["event"] === event);
const answered = () => told(linesOf(api), "http.response").filter((line) => line["method"] === "POST");
await until("every answer to be logged", () => answered().length === callers.length + 1);
const ownTraceIds = new Set(callers.map(({ traceId }) => traceId));
const refusedTrace = String(answered().find((line) => !ownTraceIds.has(String(line["trace_id"])))?.["trace_id"]);

const noTrace: JaegerTrace = { traceID: "", spans: [], processes: {} };
const named = (trace: JaegerTrace, operation: string, service: string) =>
  trace.spans.filter(
    (span) => span.operationName === operation && trace.processes[span.processID]?.serviceName === service,
  );
const serverSpan = (trace: JaegerTrace) => named(trace, "POST /api/v1/tags", services.api);
const referred = (span: JaegerSpan | undefined, kind: "CHILD_OF" | "FOLLOWS_FROM") =>
  (span?.references ?? [])
    .filter(({ refType }) => refType === kind)
    .map(({ traceID, spanID }) => `${traceID}/${spanID}`);
const idOf = ({ traceID, spanID }: JaegerSpan) => `${traceID}/${spanID}`;

/** The spans of a trace that are no client's: what a request and a worker do, without the statements and requests that it takes. */
const steps = (trace: JaegerTrace) => trace.spans.filter(({ tags }) => tagsOf(tags)["span.kind"] !== "client");

/** The whole trace, once as many steps of it are there as the processes took. */
const readWhole = (traceId: string, count: number): Promise<JaegerTrace> =>
  until(`${count} steps of ${traceId}`, async () => {
    const trace = await readTrace(traceId).catch(() => undefined);
    return trace !== undefined && steps(trace).length >= count && trace;
  });

const traces = await Promise.all(callers.map(({ traceId }) => readWhole(traceId, 3)));
/** By projection: the traces of its batches of fifty. */
const batches = new Map(
  await Promise.all(
    queues.map(async ([projection, service]) => {
      const query = { ...since, service, operation: "projection.process_batch", tags: '{"batch_size":"50"}' };
      const ids = await until(`the batch of ${projection}`, async () => {
        const seen = await found(query);
        return seen.length > 0 && seen;
      });
      // Loop, claim and batch; making ready what is sent is a step of its own.
      const count = projection === "search" ? 4 : 3;
      return [projection, await Promise.all(ids.map((id) => readWhole(id, count)))] as const;
    }),
  ),
);
const batchSpans = (projection: "search" | "chronicle") =>
  (batches.get(projection) ?? []).flatMap((trace) =>
    named(trace, "projection.process_batch", services[projection]).filter((span) => !isPreparing(span)),
  );
const isPreparing = ({ tags }: JaegerSpan) => tagsOf(tags)["mode"] === "es_bulk_prepare";

test("each of fifty requests continues its caller's trace, and nobody else's", () => {
  for (const [i, { traceId, parentId }] of callers.entries()) {
    const trace = traces[i] ?? noTrace;
    expect(steps(trace)).toHaveLength(3);
    expect(serverSpan(trace).map((span) => referred(span, "CHILD_OF"))).toEqual([[`${traceId}/${parentId}`]]);
  }
});

test.each(queues)(
  "each event of the %s queue is processed below the request that wrote its row",
  async (projection, service) => {
    const subject =
      projection === "search"
        ? sql`o.entity_id`
        : sql`(select entity_id from chronicle_events c where c.id = o.entity_id)`;
    const rows = await stage.db.execute<{ id: string; name: string; traceparent: string }>(sql`
    select o.id::text, t.name, o.traceparent from ${sql.identifier(`${projection}_outbox_events`)} o join tags t on t.id = ${subject}`);
    const written = new Map(rows.map((row) => [row.id, row]));
    for (const [i, caller] of callers.entries()) {
      const trace = traces[i] ?? noTrace;
      const [request] = serverSpan(trace);
      const processed = named(trace, "outbox.process", service);
      expect(processed).toHaveLength(1);
      const [span] = processed;
      expect(referred(span, "CHILD_OF")).toEqual([`${caller.traceId}/${request?.spanID}`]);
      const row = written.get(String(tagsOf(span?.tags ?? [])["wordloom.outbox_event_id"]));
      expect([row?.name, row?.traceparent]).toEqual([caller.name, `00-${caller.traceId}-${request?.spanID}-01`]);
    }
  },
);

test.each(queues)(
  "the batch of the %s projection is one span, in a trace of its own, that links to each producer",
  (projection) => {
    expect(batches.get(projection)).toHaveLength(1);
    const spans = batchSpans(projection);
    expect(spans).toHaveLength(1);
    const [batch] = spans;
    expect(ownTraceIds).not.toContain(batch?.traceID ?? "");
    expect(referred(batch, "FOLLOWS_FROM").toSorted()).toEqual(traces.flatMap(serverSpan).map(idOf).toSorted());
    expect(tagsOf(batch?.tags ?? [])).toMatchObject({
      batch_size: 50,
      success_count: 50,
      failure_count: 0,
      result: "ok",
    });
  },
);

test.each(queues)("each event's span of the %s projection links to its batch and names it", (projection, service) => {
  const [batch] = batchSpans(projection);
  for (const trace of traces)
    for (const span of named(trace, "outbox.process", service)) {
      expect(referred(span, "FOLLOWS_FROM")).toEqual(batch ? [idOf(batch)] : []);
      expect(tagsOf(span.tags)["wordloom.claim_batch_id"]).toBe(tagsOf(batch?.tags ?? [])["wordloom.claim_batch_id"]);
    }
});

test.each(queues)("loop, claim, batch and request of the %s projection are one tree", (projection, service) => {
  const [trace] = batches.get(projection) ?? [];
  if (trace === undefined) throw new Error("no trace of the batch");
  const loops = named(trace, "outbox_worker.loop", service);
  expect(loops.map((span) => referred(span, "CHILD_OF"))).toEqual([[]]);
  const below = [...named(trace, "outbox.claim_batch", service), ...batchSpans(projection)];
  expect(below.map((span) => referred(span, "CHILD_OF"))).toEqual([loops.map(idOf), loops.map(idOf)]);
  const sent = trace.spans.filter((span) => span.operationName.startsWith("bulk "));
  expect(sent.map((span) => referred(span, "CHILD_OF"))).toEqual(
    projection === "search" ? [batchSpans(projection).map(idOf)] : [],
  );
});

test("the time until what is sent is made is a step of the batch, which says of how many documents", () => {
  const [trace] = batches.get("search") ?? [];
  const preparing = trace?.spans.filter(isPreparing) ?? [];
  expect(preparing.map((span) => referred(span, "CHILD_OF"))).toEqual([batchSpans("search").map(idOf)]);
  expect(preparing.map(({ tags }) => tagsOf(tags))).toMatchObject([
    { bulk_ops: 50, batch_size: 50, result: "prepared" },
  ]);
});

test.each(queues)("what the %s projection reads and settles are steps of its batch", (projection) => {
  const [trace] = batches.get(projection) ?? [];
  const below = batchSpans(projection).map(idOf);
  const statements = (trace?.spans ?? []).filter(
    (span) => tagsOf(span.tags)["db.system.name"] === "postgresql" && referred(span, "CHILD_OF")[0] === below[0],
  );
  const summaries = statements.map(({ operationName }) => operationName);
  expect(summaries.length).toBe(2);
  expect(summaries.some((summary) => summary.includes("_outbox_events_live"))).toBe(true);
});

test("each service tells where its spans go", () => {
  const starts = (process: Parameters<typeof linesOf>[0]) =>
    told(linesOf(process), "tracing.startup")
      .map((line) => String(line["otel_service_name"]))
      .toSorted();
  expect([starts(api), starts(worker)]).toEqual([[services.api], [services.chronicle, services.search]]);
});

test.each(queues)("polls of the %s projection that find nothing make no spans", async (_, service) => {
  const doing = (operation: string) => found({ ...since, service, operation, limit: "1000" });
  expect(await doing("outbox_worker.loop")).toEqual(await doing("projection.process_batch"));
});

test("one request is one trace: its server span, and below it each attempt of both projections", async () => {
  const trace = await readWhole(refusedTrace, 4);
  const [request, ...others] = serverSpan(trace);
  expect([others, referred(request, "CHILD_OF")]).toEqual([[], []]);
  const attempts = (service: string) =>
    named(trace, "outbox.process", service)
      .toSorted((a, b) => a.startTime - b.startTime)
      .map((span) => {
        expect(referred(span, "CHILD_OF")).toEqual(request ? [idOf(request)] : []);
        return tagsOf(span.tags)["result"];
      });
  expect(attempts(services.search)).toEqual(["retry", "ok"]);
  expect(attempts(services.chronicle)).toEqual(["ok"]);
  expect(steps(trace)).toHaveLength(4);
});

test("it is found by every tag that the operator documents search by", async () => {
  const trace = await readWhole(refusedTrace, 4);
  const everywhere = [{ "wordloom.obs_schema": obsSchema }, { result: "ok" }];
  const finds = async (service: string, tags: Readonly<Record<string, string>>) =>
    expect(
      await found({ ...since, service, operation: "outbox.process", limit: "1000", tags: JSON.stringify(tags) }),
      `${service} ${JSON.stringify(tags)}`,
    ).toContain(refusedTrace);
  for (const [projection, service] of queues) {
    const { "wordloom.outbox_event_id": event, "wordloom.claim_batch_id": batch } = tagsOf(
      named(trace, "outbox.process", service)[0]?.tags ?? [],
    );
    const id = { "wordloom.outbox_event_id": String(event) };
    const claim = { "wordloom.claim_batch_id": String(batch) };
    const schema = { "wordloom.obs_schema": obsSchema };
    for (const tags of [...everywhere, id, claim, { ...id, ...schema }, { ...claim, ...schema }, { projection }])
      await finds(service, tags);
    // The one event, and no other.
    const { body } = await search({ ...since, service, operation: "outbox.process", tags: JSON.stringify(id) });
    expect(body.data?.map(({ traceID }) => traceID)).toEqual([refusedTrace]);
    // Its batch as well: a trace of its own.
    const whole = {
      ...since,
      service,
      operation: "projection.process_batch",
      tags: JSON.stringify({ ...claim, ...schema }),
    };
    expect(await found(whole)).toHaveLength(1);
  }
  await finds(services.search, { "wordloom.labs.es_429.injected": "true" });
  await finds(services.search, { result: "retry", reason: "es_429" });
  expect(
    await found({
      ...since,
      service: services.api,
      tags: JSON.stringify({ "wordloom.obs_schema": obsSchema }),
      limit: "1000",
    }),
  ).toContain(refusedTrace);
});

test("every span says by which schema its keys are to be read, as every line of both logs does", async () => {
  const all = [...traces, ...[...batches.values()].flat(), await readWhole(refusedTrace, 4)];
  for (const span of all.flatMap((trace) => trace.spans))
    expect(tagsOf(span.tags)["wordloom.obs_schema"]).toBe(obsSchema);
  for (const line of [...linesOf(api), ...linesOf(worker)]) expect(line["obs_schema"]).toBe(obsSchema);
});

test("the log lines of a request and of its events carry its trace id, and each the id of its own span", async () => {
  expect(
    answered()
      .map((line) => String(line["trace_id"]))
      .toSorted(),
  ).toEqual([...ownTraceIds, refusedTrace].toSorted());
  const all = [...traces, await readWhole(refusedTrace, 4)];
  for (const [projection, service] of queues) {
    const spans = all.flatMap((trace) => named(trace, "outbox.process", service));
    const lines = told(linesOf(worker), "outbox.process").filter(
      (line) => line["projection"] === projections[projection],
    );
    const keysOf = lines.map((line) =>
      [line["outbox_event_id"], line["result"], `${String(line["trace_id"])}/${String(line["span_id"])}`].join(" "),
    );
    const expected = spans.map((span) => {
      const { "wordloom.outbox_event_id": event, result } = tagsOf(span.tags);
      return [event, result, idOf(span)].join(" ");
    });
    expect(keysOf.toSorted()).toEqual(expected.toSorted());
  }
});

import { beforeEach, expect, test } from "bun:test";
import { SpanStatusCode } from "@opentelemetry/api";
import { readConfig } from "../../src/config.ts";
import type { ClaimedEvent, Decision } from "../../src/events.ts";
import type { WorkerIdentity } from "../../src/telemetry/event-signals.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { openMetrics } from "../../src/telemetry/metrics.ts";
import { openTracing } from "../../src/telemetry/tracing.ts";
import { workerSignals } from "../../src/telemetry/worker-signals.ts";
import { spanMemory } from "../support/telemetry.ts";

/** What a worker tells of a batch, in all three signals. */

const config = readConfig({
  WORDLOOM_ENV: "test",
  WORDLOOM_TRACING_ENABLED: "1",
  LOG_LEVEL: "debug",
  OTEL_TRACES_SAMPLER: "always_on",
});
let lines: Record<string, unknown>[] = [];
beforeEach(() => {
  lines = [];
});

function open(over: Partial<WorkerIdentity> = {}) {
  const memory = spanMemory();
  const tracing = openTracing(config, "search", "test", () => undefined, memory);
  const metrics = openMetrics("worker");
  const log = openLog(config, "test", { write: (line: string) => void lines.push(JSON.parse(line)) });
  const identity = {
    projection: "search",
    workerId: "w1",
    esIndex: "wordloom",
    projectionVersion: 1,
    ...over,
  } as const;
  const signals = workerSignals({ log, metrics, tracing }, identity);
  const spans = async (name: string) => {
    await tracing.close();
    return memory.spans.filter((span) => span.name === name);
  };
  const counted = async (series: string) =>
    Number(
      (await metrics.render(null)).body
        .split("\n")
        .find((line) => line.startsWith(series))
        ?.split(" ")
        .at(-1),
    );
  return { signals, spans, counted };
}

const traced = (n: number) => `00-${n.toString(16).padStart(32, "0")}-${n.toString(16).padStart(16, "0")}-01`;
const eventsOf = (traceparents: readonly string[]): ClaimedEvent[] =>
  traceparents.map((traceparent, i) => ({
    id: BigInt(i + 1),
    entityType: "tag",
    entityId: crypto.randomUUID(),
    op: "upsert",
    eventVersion: 7n,
    attempts: 2,
    countedAttempts: 1,
    ageSeconds: 0.1,
    traceparent,
    tracestate: null,
  }));
const claimBatchId = "b1";
const done: Decision = { outcome: { kind: "done", result: "applied", sent: true } };

async function settle(
  { signals }: ReturnType<typeof open>,
  outcomes: readonly Decision[],
  lost: readonly number[] = [],
  traceparents = outcomes.map((_, i) => traced(i + 1)),
) {
  const events = eventsOf(traceparents);
  const told = new Map(events.flatMap(({ id }, i) => (outcomes[i] ? [[id, outcomes[i]] as const] : [])));
  const settled = new Set(events.flatMap(({ id }, i) => (lost.includes(i) ? [] : [id])));
  await signals
    .claimed({ claimBatchId, events }, { startedAt: Date.now(), tookMs: 1, limit: 500, mode: "atomic" })
    .settled(told, settled, 1);
}
const said = (event: string) => lines.find((line) => line["event"] === event);

test("a batch links to each producer once, however many of its events that one has written", async () => {
  const worker = open();
  const many = [...Array.from({ length: 200 }, () => traced(1)), traced(2)];
  await settle(
    worker,
    many.map(() => done),
    [],
    many,
  );
  const [batch] = await worker.spans("projection.process_batch");
  expect(batch?.links.map(({ context }) => Number(context.traceId))).toEqual([1, 2]);
  expect(batch?.attributes["wordloom.links_dropped"]).toBe(0);
});

test("a batch is told in parts, so that nobody waits for all of it", async () => {
  const worker = open();
  let turns = 0;
  let over = false;
  const others = () => {
    turns += 1;
    if (!over) setImmediate(others);
  };
  setImmediate(others);
  await settle(
    worker,
    Array.from({ length: 500 }, () => done),
  );
  over = true;
  expect(turns).toBeGreaterThanOrEqual(4);
  expect(await worker.counted("outbox_processed_total")).toBe(500);
  expect(await worker.spans("outbox.process")).toHaveLength(500);
});

test("of more than 128 producers the rest is counted", async () => {
  const worker = open();
  await settle(
    worker,
    Array.from({ length: 130 }, () => done),
  );
  const [batch] = await worker.spans("projection.process_batch");
  expect([batch?.links.length, batch?.attributes["wordloom.links_dropped"]]).toEqual([128, 2]);
});

test("a batch that was lost to others as a whole has failed, and each of its events says why", async () => {
  const worker = open();
  await settle(worker, [done, done], [0, 1]);
  const failed = { result: "failed", reason: "owner_mismatch", owner_mismatch: 2, ok_count: 0 };
  expect(said("projection.process_batch")).toMatchObject({ level: "warn", ...failed });
  const [batch] = await worker.spans("projection.process_batch");
  expect(batch?.attributes).toMatchObject(failed);
  const events = await worker.spans("outbox.process");
  expect(events.map(({ attributes }) => [attributes["result"], attributes["reason"]])).toEqual([
    ["skipped", "owner_mismatch"],
    ["skipped", "owner_mismatch"],
  ]);
  expect(await worker.counted("outbox_owner_mismatch_skips_total{")).toBe(2);
  expect(await worker.counted('outbox_processed_total{projection="search_index_to_elastic",op="upsert"}')).toBe(0);
});

test("a batch of which some was lost is partial", async () => {
  const worker = open();
  await settle(worker, [done, done], [1]);
  const [batch] = await worker.spans("projection.process_batch");
  expect(batch?.attributes).toMatchObject({ result: "partial", reason: "owner_mismatch", ok_count: 1 });
});

test("what was not sent is no failure and no attempt, whatever it waits for", async () => {
  const worker = open();
  const retry = (sent: boolean): Decision => ({
    outcome: { kind: "retry", reason: "es_5xx", error: "503", delayMs: 0, counted: false, sent },
  });
  await settle(worker, [retry(true), retry(false)]);
  const [sent, unsent] = await worker.spans("outbox.process");
  expect([sent?.status.code, unsent?.status.code]).toEqual([SpanStatusCode.ERROR, SpanStatusCode.UNSET]);
  expect([sent, unsent].map((span) => span?.attributes["wordloom.outbox_attempts"])).toEqual([2, 1]);
  const labels = '{projection="search_index_to_elastic",op="upsert",reason="es_5xx"}';
  expect(await worker.counted(`outbox_failed_total${labels}`)).toBe(1);
  expect(await worker.counted(`outbox_retry_scheduled_total${labels}`)).toBe(2);
});

test("what the labs inject is said of the events that it hit, and of the batch as far as they agree", async () => {
  const worker = open({ labs: { "wordloom.labs.es_429.mode": "every_n" } });
  const hit = (counter: number): Decision => ({
    outcome: { kind: "retry", reason: "es_429", error: "injected", delayMs: 0, counted: false, sent: true },
    labs: { "wordloom.labs.es_429.injected": true, "wordloom.labs.es_429.counter": counter },
  });
  await settle(worker, [done, hit(2), hit(4)]);
  const labsOf = (attributes: Readonly<Record<string, unknown>>) =>
    Object.entries(attributes).filter(([key]) => key.startsWith("wordloom.labs."));
  const mode = ["wordloom.labs.es_429.mode", "every_n"];
  const injected = ["wordloom.labs.es_429.injected", true];
  const events = await worker.spans("outbox.process");
  expect(events.map(({ attributes }) => labsOf(attributes))).toEqual([
    [mode],
    [mode, injected, ["wordloom.labs.es_429.counter", 2]],
    [mode, injected, ["wordloom.labs.es_429.counter", 4]],
  ] as never);
  const [batch] = await worker.spans("projection.process_batch");
  expect(labsOf(batch?.attributes ?? {})).toEqual([mode, injected] as never);
});

test("the chronicle's spans have the names of both families", async () => {
  const worker = open({ projection: "chronicle", esIndex: null });
  await settle(worker, [done]);
  const [event] = await worker.spans("outbox.process");
  expect(event?.attributes).toMatchObject({
    "wordloom.outbox.event_version": "7",
    "wordloom.outbox.attempts": 2,
    "wordloom.outbox_event_version": "7",
    "wordloom.outbox_attempts": 2,
  });
});

test("a reclaim is told in the trace of who wrote the event, and an event that fails by it is a span of its own", async () => {
  const worker = open();
  const row = { ...eventsOf([traced(5)])[0], from: "w0", claimBatchId, why: "lease_expired", reclaimCount: 1 };
  worker.signals.reclaimed([
    { ...row, status: "pending" },
    { ...row, id: 2n, status: "failed" },
  ] as never);
  const trace = {
    trace_id: traced(5).slice(3, 35),
    entity_type: "tag",
    attempt: 2,
    op: "upsert",
    from: "w0",
    who: "w1",
  };
  const [back, failed] = lines.filter((line) => line["event"] === "outbox.reclaimed");
  expect(back).toMatchObject({ ...trace, level: "warn", result: "pending", reason: "none" });
  expect(failed).toMatchObject({ ...trace, level: "error", result: "failed", reason: "lease_expired" });
  const [span, ...others] = await worker.spans("outbox.process");
  expect(others).toEqual([]);
  expect(span?.spanContext().traceId).toBe(trace.trace_id);
  expect(span?.status.code).toBe(SpanStatusCode.ERROR);
  expect(span?.attributes).toMatchObject({
    "wordloom.outbox_event_id": "2",
    result: "failed",
    reason: "lease_expired",
    "wordloom.outbox_event_version": "7",
    "wordloom.es_index": "wordloom",
  });
});

test("an event of the chronicle that fails by a reclaim is found by the names of drill H", async () => {
  const worker = open({ projection: "chronicle", esIndex: null });
  const [event] = eventsOf([traced(5)]);
  worker.signals.reclaimed([
    { ...event, from: "w0", claimBatchId, why: "lease_expired", reclaimCount: 3, status: "failed" },
  ] as never);
  const [span] = await worker.spans("outbox.process");
  expect(span?.attributes).toMatchObject({
    "wordloom.entity.id": event?.entityId,
    "wordloom.outbox.event_version": "7",
  });
  expect(span?.attributes).not.toHaveProperty("wordloom.es_index");
});

test("a claim tells how many events it would have taken, and how many it took; one of none is a line alone", async () => {
  const worker = open();
  await settle(worker, [done, done]);
  worker.signals.nothingClaimed(500, "atomic");
  const [span, ...others] = await worker.spans("outbox.claim_batch");
  expect([others, span?.attributes]).toMatchObject([[], { batch_size: 500, claimed: 2 }]);
  const told = lines.filter((line) => line["event"] === "outbox.claim_batch");
  expect(told.map(({ level, batch_size, claimed }) => [level, batch_size, claimed])).toEqual([
    ["info", 500, 2],
    ["debug", 500, 0],
  ]);
});

test("what changed nothing says so on its span: deduped by a newer version, or a noop", async () => {
  const worker = open();
  await settle(worker, [
    done,
    { outcome: { kind: "done", result: "superseded", sent: true } },
    { outcome: { kind: "done", result: "noop", sent: true }, noopReason: "es_404" },
  ]);
  const spans = await worker.spans("outbox.process");
  expect(spans.map(({ attributes }) => [attributes["deduped"], attributes["noop"]])).toEqual([
    [undefined, undefined],
    [true, undefined],
    [undefined, true],
  ]);
});

test("a target that stays down is told once, however often it is probed, and again when it is back", () => {
  const { signals } = open();
  const states = ["open", "half_open", "open", "half_open", "open", "half_open", "closed", "open"] as const;
  for (const state of states) signals.breakerTurned(state, "es_connect");
  const warned = lines.filter((line) => line["event"] === "outbox.breaker" && line["level"] === "warn");
  expect(warned.map((line) => line["state"])).toEqual(["open", "closed", "open"]);
});

test("every line has a message", async () => {
  const worker = open();
  await settle(worker, [done, { outcome: { kind: "release" } }], []);
  const { signals } = worker;
  signals.breakerTurned("closed", null);
  signals.breakerWaiting("es_connect", 500);
  signals.databaseFailed("claim", "db_unavailable", new Error("away"));
  signals.pruned(1, 2);
  signals.stateTurned("RUNNING", null);
  signals.leaseNotRenewed("b1", 1, 2);
  signals.hastened(3);
  expect(lines.length).toBeGreaterThan(9);
  expect(lines.filter((line) => typeof line["message"] !== "string" || line["message"] === "")).toEqual([]);
});

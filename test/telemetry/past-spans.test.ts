import { describe, expect, test } from "bun:test";
import { type SpanContext, SpanKind, SpanStatusCode } from "@opentelemetry/api";
import type { ReadableSpan } from "@opentelemetry/sdk-trace-base";
import { readConfig } from "../../src/config.ts";
import { contextBelow, parseHeaders } from "../../src/telemetry/propagation.ts";
import { openTracing } from "../../src/telemetry/tracing.ts";
import { spanMemory } from "../support/telemetry.ts";

const traceparent = (flags: string) => `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-${flags}`;
const parents: [string, SpanContext | undefined][] = [
  ["as a root", undefined],
  ["below a sampled parent", parseHeaders(traceparent("01"), "vendor=1,other=2")],
  ["below a parent that is not sampled", parseHeaders(traceparent("00"), null)],
];
const samplers = ["always_on", "always_off", "parentbased_always_on", "parentbased_always_off", "traceidratio"];

function open(sampler: string) {
  const memory = spanMemory();
  const env = { WORDLOOM_TRACING_ENABLED: "1", OTEL_TRACES_SAMPLER: sampler, OTEL_TRACES_SAMPLER_ARG: "1" };
  return { ...openTracing(readConfig(env), "search", "1", () => undefined, memory), spans: memory.spans };
}

/** All that is sent of a span. Trace id and span id are random: of them the form is told, or that it is the parent's. */
function sent(span: ReadableSpan, parent: SpanContext | undefined) {
  const { traceId, spanId, traceFlags, traceState } = span.spanContext();
  return {
    traceId: traceId === parent?.traceId ? "the parent's" : traceId.replaceAll(/[\da-f]/g, "x"),
    spanId: spanId.replaceAll(/[\da-f]/g, "x"),
    traceFlags,
    traceState: traceState?.serialize(),
    parent: span.parentSpanContext,
    name: span.name,
    kind: span.kind,
    startTime: span.startTime,
    endTime: span.endTime,
    duration: span.duration,
    ended: span.ended,
    status: span.status,
    attributes: span.attributes,
    links: span.links,
    events: span.events,
    resource: span.resource.attributes,
    scope: span.instrumentationScope.name,
    dropped: [span.droppedAttributesCount, span.droppedEventsCount, span.droppedLinksCount],
  };
}

const startedAt = 1_795_000_000_123;
const endedAt = startedAt + 4567;
const attributes = { text: "one", count: 2, ratio: 0.5, yes: true, list: ["a", "b"] };
const links = [{ context: { traceId: "1".repeat(32), spanId: "2".repeat(16), traceFlags: 1 } }];
const status = { code: SpanStatusCode.ERROR, message: "es_429" };

describe.each(samplers)("with %s", (sampler) => {
  test.each(parents)("a span of what is over is what the tracer makes of the same, %s", async (_, parent) => {
    const tracing = open(sampler);
    const options = { kind: SpanKind.CONSUMER, startTime: startedAt, attributes, links };
    const made = tracing.tracer.startSpan("work", options, contextBelow(parent)).setStatus(status);
    made.end(endedAt);
    const kind = SpanKind.CONSUMER;
    const told = { name: "work", kind, startedAt, endedAt, links, attributes: () => attributes, status };
    const context = tracing.past(parent, told);
    expect(context.traceFlags).toBe(made.spanContext().traceFlags);
    await tracing.close();
    const [byTracer, past, ...more] = tracing.spans.map((span) => sent(span, parent));
    expect(more).toEqual([]);
    expect(past).toEqual(byTracer);
    if (past) expect(tracing.spans[1]?.spanContext()).toEqual(context);
  });
});

test("without kind, links and status it is internal, has none, and has not failed", async () => {
  const tracing = open("always_on");
  tracing.tracer.startSpan("work", { startTime: startedAt }, contextBelow(undefined)).end(endedAt);
  tracing.past(undefined, { name: "work", startedAt, endedAt, attributes: () => ({}) });
  await tracing.close();
  const [byTracer, past] = tracing.spans.map((span) => sent(span, undefined));
  expect(past).toBeDefined();
  expect(past).toEqual(byTracer);
});

test("nobody asks for the attributes of a span that is not sampled", () => {
  const tracing = open("always_off");
  const asked = () => {
    throw new Error("asked");
  };
  expect(tracing.past(undefined, { name: "work", startedAt, endedAt, attributes: asked }).traceFlags).toBe(0);
});

test("no two of them have one id", async () => {
  const tracing = open("always_on");
  const tell = () => tracing.past(undefined, { name: "work", startedAt, endedAt, attributes: () => ({}) });
  const contexts = Array.from({ length: 200 }, tell);
  await tracing.close();
  expect(new Set(contexts.map(({ spanId }) => spanId)).size).toBe(200);
  expect(new Set(contexts.map(({ traceId }) => traceId)).size).toBe(200);
});

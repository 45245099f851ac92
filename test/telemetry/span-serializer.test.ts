import { describe, expect, test } from "bun:test";
import {
  type Attributes,
  createTraceState,
  type HrTime,
  type Link,
  type SpanContext,
  SpanKind,
  type SpanStatus,
  SpanStatusCode,
} from "@opentelemetry/api";
import { ProtobufTraceSerializer } from "@opentelemetry/otlp-transformer";
import { resourceFromAttributes } from "@opentelemetry/resources";
import type { ReadableSpan, TimedEvent } from "@opentelemetry/sdk-trace-base";
import fc from "fast-check";
import { openSpanSerializer } from "../../src/telemetry/span-serializer.ts";

/** What the SDK makes of the same spans. */
const reference = (spans: readonly ReadableSpan[]) => ProtobufTraceSerializer.serializeRequest([...spans]);

const resources = [
  { resource: resourceFromAttributes({ "service.name": "wordloom-api", "process.pid": 7 }), scope: { name: "api" } },
  {
    resource: resourceFromAttributes(
      { "service.name": "worker" },
      { schemaUrl: "https://opentelemetry.io/schemas/1.44.0" },
    ),
    scope: { name: "worker", version: "1.2.3", schemaUrl: "https://example.test/schema" },
  },
] as const;
/** Another scope of the first resource. */
const otherScope = { name: "other" };

const plain: ReadableSpan = {
  name: "outbox.process",
  kind: SpanKind.CONSUMER,
  spanContext: () => ({ traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331", traceFlags: 1 }),
  startTime: [1_790_000_000, 1],
  endTime: [1_790_000_000, 999_999_999],
  status: { code: SpanStatusCode.UNSET },
  attributes: {},
  links: [],
  events: [],
  duration: [0, 1],
  ended: true,
  resource: resources[0].resource,
  instrumentationScope: resources[0].scope,
  droppedAttributesCount: 0,
  droppedEventsCount: 0,
  droppedLinksCount: 0,
};

/** Spans that differ in nothing but their attributes. */
const withAttributes = (...all: readonly Attributes[]) => all.map((attributes) => ({ ...plain, attributes }));

const hex = (bytes: number) =>
  fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((drawn) => Buffer.from(drawn).toString("hex"));
const text = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 20 }),
  // Around the lengths from which a length takes one byte more.
  fc.integer({ min: 100, max: 140 }).map((n) => "x".repeat(n)),
  fc.integer({ min: 16_350, max: 16_400 }).map((n) => "字".repeat(n / 3)),
);
const number = fc.oneof(
  fc.integer(),
  fc.maxSafeInteger(),
  fc.double(),
  fc.constantFrom(0, -0, 127, 128, 2 ** 32 - 1, 2 ** 32, -1, -(2 ** 31), 2 ** 62, -(2 ** 63), 2 ** 63, 1e300),
);
const value = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom("upsert", "ok", "none", 1, true) },
  text,
  number,
  fc.boolean(),
  fc.array(fc.oneof(text, number, fc.boolean()), { maxLength: 3 }),
) as fc.Arbitrary<Attributes[string]>;
/** Few keys in few orders, so that spans resemble each other as those of a batch do. */
const attributes = fc.dictionary(fc.constantFrom("result", "reason", "op", "id", "wordloom.claim_batch_id"), value, {
  maxKeys: 5,
});
const time: fc.Arbitrary<HrTime> = fc.tuple(fc.nat(4_600_000_000), fc.nat(999_999_999));
const spanContext: fc.Arbitrary<SpanContext> = fc.record(
  {
    traceId: hex(16),
    spanId: hex(8),
    traceFlags: fc.constantFrom(0, 1, 3),
    isRemote: fc.boolean(),
    traceState: fc.constantFrom(createTraceState("a=1,b=2"), createTraceState("")),
  },
  { requiredKeys: ["traceId", "spanId", "traceFlags"] },
);
const dropped = fc.constantFrom(0, 3, 300);
const link: fc.Arbitrary<Link> = fc.record(
  { context: spanContext, attributes, droppedAttributesCount: dropped },
  { requiredKeys: ["context"] },
);
/** Lists that spans share, as those of a batch do. */
const sharedLinks: Link[][] = ["1", "2"].map((digit) => [
  { context: { traceId: digit.repeat(32), spanId: digit.repeat(16), traceFlags: 1 } },
]);
const event: fc.Arbitrary<TimedEvent> = fc.record(
  { time, name: text, attributes, droppedAttributesCount: dropped },
  { requiredKeys: ["time", "name"] },
);
const status: fc.Arbitrary<SpanStatus> = fc.record(
  { code: fc.constantFrom(SpanStatusCode.UNSET, SpanStatusCode.OK, SpanStatusCode.ERROR), message: text },
  { requiredKeys: ["code"] },
);
const span: fc.Arbitrary<ReadableSpan> = fc
  .record({
    about: fc.constantFrom(...resources, { ...resources[0], scope: otherScope }),
    context: spanContext,
    parentSpanContext: fc.option(spanContext, { nil: undefined }),
    name: text,
    kind: fc.constantFrom(SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER),
    startTime: time,
    endTime: time,
    status,
    attributes,
    links: fc.oneof(fc.constantFrom(...sharedLinks), fc.array(link, { maxLength: 3 })),
    events: fc.array(event, { maxLength: 2 }),
    droppedAttributesCount: dropped,
    droppedEventsCount: dropped,
    droppedLinksCount: dropped,
  })
  .map(({ about, context, parentSpanContext, ...rest }) => ({
    ...plain,
    ...rest,
    ...(parentSpanContext === undefined ? {} : { parentSpanContext }),
    spanContext: () => context,
    resource: about.resource,
    instrumentationScope: about.scope,
  }));

describe("a request for the collector", () => {
  test("is byte for byte what the SDK's serializer makes of any spans, one request after the other", () => {
    fc.assert(
      fc.property(fc.array(fc.array(span, { maxLength: 12 }), { minLength: 1, maxLength: 3 }), (requests) => {
        const serialize = openSpanSerializer();
        for (const spans of requests)
          expect(Buffer.from(serialize(spans))).toEqual(Buffer.from(reference(spans) ?? []));
      }),
      { numRuns: 500 },
    );
  });

  test("keeps its bytes when the next one is made", () => {
    const serialize = openSpanSerializer();
    const first = serialize(withAttributes({ result: "ok" }));
    serialize(withAttributes({ result: "failed" }));
    expect(Buffer.from(first)).toEqual(Buffer.from(reference(withAttributes({ result: "ok" })) ?? []));
  });

  test("has all its bytes wherever the room for them ends", () => {
    for (let bytes = 0; bytes < 600; bytes += 1) {
      const same = "a".repeat(bytes);
      const spans = withAttributes({ same, id: "1" }, { same, id: "2" }, { text: "字".repeat(2000) });
      expect(Buffer.from(openSpanSerializer()(spans))).toEqual(Buffer.from(reference(spans) ?? []));
    }
  });

  test("has a list as it is now, not as it was when the spans before it were written", () => {
    const list = [0];
    const changing: ReadableSpan = {
      ...plain,
      // Read between the attributes of one span and those of the next.
      get events() {
        list[0] = (list[0] ?? 0) + 1;
        return [];
      },
      attributes: { list, padding: "x".repeat(40) },
    };
    const asItWas = (n: number) => ({ ...plain, attributes: { list: [n], padding: "x".repeat(40) } });
    const written = Buffer.from(openSpanSerializer()([changing, changing, changing, changing]));
    expect(written).toEqual(Buffer.from(reference([0, 1, 2, 3].map(asItWas)) ?? []));
  });

  test("copies what attributes begin with only as far as key, value and place are those of the span before", () => {
    const spans = withAttributes(
      { a: "1", b: "2", c: "3" },
      { a: "1", b: "2", c: "3" },
      { a: "1", b: "x", c: "3" },
      { b: "2", a: "1", c: "3" },
      { a: "1" },
      { a: "1", b: "2", c: "3" },
      { a: 1, b: "2", c: true },
    );
    expect(Buffer.from(openSpanSerializer()(spans))).toEqual(Buffer.from(reference(spans) ?? []));
  });

  test("has attributes as they are beside a span that is shorter or longer than most", () => {
    const short = { ...plain, name: "", attributes: { a: "1" } };
    const long = { ...plain, attributes: { a: "1", text: "x".repeat(17_000), b: "2" } };
    for (const moved of [short, long]) {
      const spans = [moved, moved, { ...plain, attributes: { a: "1", b: "2" } }, moved];
      expect(Buffer.from(openSpanSerializer()(spans))).toEqual(Buffer.from(reference(spans) ?? []));
    }
  });
});

import {
  type Attributes,
  type Link,
  type SpanContext,
  SpanKind,
  type SpanStatus,
  SpanStatusCode,
  TraceFlags,
} from "@opentelemetry/api";
import { type InstrumentationScope, millisToHrTime } from "@opentelemetry/core";
import type { Resource } from "@opentelemetry/resources";
import { RandomIdGenerator, type Sampler, SamplingDecision, type SpanProcessor } from "@opentelemetry/sdk-trace-base";
import { contextBelow } from "./propagation.ts";

/** A span of finished work. */
export type PastSpan = {
  readonly name: string;
  /** Default: INTERNAL. */
  readonly kind?: SpanKind;
  /** Both by the wall clock, in milliseconds. */
  readonly startedAt: number;
  readonly endedAt: number;
  readonly links?: Link[];
  /** Asked for when the span is sampled: the sampler does not see them. */
  readonly attributes: () => Attributes;
  readonly status?: SpanStatus;
};

const unset: SpanStatus = { code: SpanStatusCode.UNSET };

/** Makes a span below `parent`, or as a root, hands it on if it is sampled, and returns its context. */
export type TellPastSpan = (parent: SpanContext | undefined, span: PastSpan) => SpanContext;

/**
 * Makes spans in one piece. What a tracer makes is open to changes until it ends, so each attribute is looked at by itself: that costs a worker that drains 2–4 us of CPU an event
 * more (docs/adr/0015-own-spans.md).
 */
export function pastSpans(
  sampler: Sampler,
  resource: Resource,
  instrumentationScope: InstrumentationScope,
  processor: SpanProcessor | undefined,
): TellPastSpan {
  const ids = new RandomIdGenerator();
  return (parent, { name, kind = SpanKind.INTERNAL, startedAt, endedAt, links = [], attributes, status = unset }) => {
    const traceId = parent?.traceId ?? ids.generateTraceId();
    const { decision, traceState = parent?.traceState } = sampler.shouldSample(
      contextBelow(parent),
      traceId,
      name,
      kind,
      {},
      links,
    );
    const sampled = decision === SamplingDecision.RECORD_AND_SAMPLED;
    const context: SpanContext = {
      traceId,
      spanId: ids.generateSpanId(),
      traceFlags: sampled ? TraceFlags.SAMPLED : TraceFlags.NONE,
    };
    if (traceState !== undefined) context.traceState = traceState;
    if (sampled)
      processor?.onEnd({
        name,
        kind,
        spanContext: () => context,
        ...(parent === undefined ? {} : { parentSpanContext: parent }),
        startTime: millisToHrTime(startedAt),
        endTime: millisToHrTime(endedAt),
        duration: millisToHrTime(endedAt - startedAt),
        ended: true,
        status,
        attributes: attributes(),
        links,
        events: [],
        resource,
        instrumentationScope,
        droppedAttributesCount: 0,
        droppedEventsCount: 0,
        droppedLinksCount: 0,
      });
    return context;
  };
}

import { setImmediate } from "node:timers/promises";
import { context, type Span, type SpanContext, SpanStatusCode, trace } from "@opentelemetry/api";
import type { ClaimedEvent, Decision, Lease } from "../events.ts";
import { batchResult, notSettled, shared } from "./batch-result.ts";
import { type BulkRequest, bulkSignals } from "./bulk-signals.ts";
import { type Ended, eventNames, eventSignals, type WorkerSinks } from "./event-signals.ts";
import { sampledTraceId, traceKeys } from "./log.ts";
import { contextBelow, parseHeaders } from "./propagation.ts";

export type BatchSignals = {
  /** Runs the batch's work inside its span. */
  readonly run: <T>(work: () => T) => T;
  /** The requests are built: with this many documents, 0 when nothing is left to send. */
  readonly prepared: (documents: number) => void;
  /** The database cannot process this event, even on its own. */
  readonly blamed: (event: ClaimedEvent, error: unknown) => void;
  readonly bulkSent: (request: BulkRequest) => void;
  /** After the settle, from what the rows now say. `settled` are the ids that were still ours. Resolves when everything is reported. */
  readonly settled: (
    decisions: ReadonlyMap<bigint, Decision>,
    settled: ReadonlySet<bigint>,
    settleMs: number,
  ) => Promise<void>;
  /** The batch could not be settled: its lease runs out, and another claim sends it again. */
  readonly lost: (error: unknown) => void;
};

export type ClaimMode = "atomic" | "non_atomic";

export type ClaimTold = {
  /** By the wall clock, in milliseconds. */
  readonly startedAt: number;
  readonly tookMs: number;
  /** How many events it would have taken. */
  readonly limit: number;
  readonly mode: ClaimMode;
  /** Of an open breaker. */
  readonly probe?: boolean;
};

/** Reports a claim that found work; what it returns reports the batch from there on. Probes that find the target still down are logged once a second. */
export type TellClaim = (batch: Pick<Lease, "claimBatchId" | "events">, claim: ClaimTold) => BatchSignals;

const maxLinks = 128;
/** This many event spans take a millisecond; a whole batch in one turn would hold up the rest of the process for five. */
const toldAtOnce = 100;

/** For events that belong to another worker by now. */
const mismatch: Ended = { outcome: { kind: "skipped", reason: "owner_mismatch" } };

/** Spans, counters and log lines of each batch, and of its events. `mayTell` is asked before the line of a probe in vain. */
export function batchSignals(sinks: WorkerSinks, mayTell: () => boolean): TellClaim {
  const { log, metrics, tracing, identity, at, base } = sinks;
  const tellEvent = eventSignals(sinks);
  const tellBulk = bulkSignals(sinks);
  const mode = identity.projection === "search" ? "es_bulk" : "sql";

  return ({ claimBatchId, events }, { startedAt, tookMs, limit, mode: claimMode, probe = false }) => {
    const claimedAt = startedAt + tookMs;
    // Ages go on by the monotonic clock: the wall clock may be set.
    const claimedTick = performance.now();
    const entityType = shared(events.map((e) => e.entityType));
    const op = shared(events.map((e) => e.op));
    const attempt = events.reduce((most, e) => Math.max(most, e.attempts), 0);
    metrics.observe("outbox_batch_size", at, events.length);
    const batchKeys = { "wordloom.claim_batch_id": claimBatchId, batch_size: events.length };
    const about = { entity_type: entityType, op, attempt };
    let loop: Span | undefined;
    let span: Span | undefined;
    const producers = new Map<bigint, SpanContext>();
    if (tracing.enabled) {
      loop = tracing.tracer.startSpan(
        "outbox_worker.loop",
        { startTime: startedAt, attributes: { ...base, ...batchKeys } },
        contextBelow(undefined),
      );
      const inLoop = trace.setSpan(context.active(), loop);
      tracing.past(loop.spanContext(), {
        name: "outbox.claim_batch",
        startedAt,
        endedAt: claimedAt,
        attributes: () => ({
          ...base,
          ...batchKeys,
          batch_size: limit,
          claim_mode: claimMode,
          claimed: events.length,
        }),
      });
      for (const { id, traceparent, tracestate } of events) {
        const producer = parseHeaders(traceparent, tracestate);
        if (producer) producers.set(id, producer);
      }
      // One request may have written them all.
      const linked = [...new Map(Array.from(producers.values(), (p) => [`${p.traceId}${p.spanId}`, p])).values()];
      span = tracing.tracer.startSpan(
        "projection.process_batch",
        {
          startTime: claimedAt,
          links: linked.slice(0, maxLinks).map((producer) => ({ context: producer })),
          attributes: {
            ...base,
            ...batchKeys,
            ...about,
            mode,
            "wordloom.links_dropped": Math.max(0, linked.length - maxLinks),
          },
        },
        inLoop,
      );
    }
    const own = span?.spanContext();
    const keys = { claim_batch_id: claimBatchId, batch_size: events.length, ...traceKeys(span) };
    metrics.observe("outbox_claim_duration_seconds", at, tookMs / 1000, sampledTraceId(own));
    log[probe ? "debug" : "info"](
      { event: "outbox.claim_batch", ...keys, batch_size: limit, claimed: events.length, claim_mode: claimMode },
      `Claimed ${events.length} outbox events`,
    );
    return {
      run: (work) => (span ? context.with(trace.setSpan(context.active(), span), work) : work()),
      prepared: (documents) => {
        const told = { mode: "es_bulk_prepare", bulk_ops: documents, result: documents === 0 ? "noop" : "prepared" };
        if (own)
          // Same name as the batch's own span: operators tell them apart by mode.
          tracing.past(own, {
            name: "projection.process_batch",
            startedAt: claimedAt,
            endedAt: Date.now(),
            attributes: () => ({ ...base, ...batchKeys, ...about, ...told }),
          });
        log.debug(
          { event: "projection.process_batch", ...keys, ...about, ...told },
          `Prepared ${documents} documents for ${events.length} outbox events`,
        );
      },
      blamed: (event, error) =>
        log.warn(
          { event: "outbox.event_blamed", ...keys, ...eventNames(event, claimBatchId), exc_info: error },
          `Outbox ${event.op}: Postgres can do nothing with <${event.entityType}:${event.entityId}>`,
        ),
      bulkSent: (request) => tellBulk(request, batchKeys, own),
      settled: async (decisions, settled, settleMs) => {
        const told = events.flatMap((event) => {
          const decision = decisions.get(event.id);
          return decision === undefined ? [] : [{ event, ended: settled.has(event.id) ? decision : mismatch }];
        });
        const { said, labs } = batchResult(told.map(({ ended }) => ended));
        const waitedSeconds = (performance.now() - claimedTick) / 1000;
        metrics.observe("outbox_settle_duration_seconds", at, settleMs / 1000, sampledTraceId(own));
        if (said.owner_mismatch > 0) metrics.add("outbox_owner_mismatch_skips_total", at, said.owner_mismatch);
        const tally = metrics.tally();
        const quiet = probe && !mayTell();
        const links = own && [{ context: own }];
        for (const [i, { event, ended }] of told.entries()) {
          if (span && i > 0 && i % toldAtOnce === 0) await setImmediate();
          tellEvent(
            event,
            ended,
            { claimBatchId, claimedAt, links, producers, quiet },
            event.ageSeconds + waitedSeconds,
            tally,
          );
        }
        tally.flush();
        // While the target is away events are still settled as superseded by newer ones, which wait: no success.
        if (told.some(({ ended: { outcome } }) => outcome.kind === "done" && outcome.sent))
          metrics.set("outbox_last_success_timestamp_seconds", at, Date.now() / 1000);
        if (span) {
          span.setAttributes({ ...said, ...labs });
          if (said.result === "failed") span.setStatus({ code: SpanStatusCode.ERROR, message: said.reason });
          span.end();
          loop?.end();
        }
        const level = said.result === "ok" ? "info" : probe && said.result === "retry" ? "debug" : "warn";
        log[level](
          { event: "projection.process_batch", ...keys, ...about, mode, ...said },
          `Processed ${events.length} outbox events: ${said.result}`,
        );
      },
      lost: (error) => {
        log.error(
          { event: "projection.batch_lost", ...keys, exc_info: error },
          "the batch could not be settled; its lease will run out and it will be sent again",
        );
        if (!span) return;
        span.setAttributes(notSettled);
        span.setStatus({ code: SpanStatusCode.ERROR, message: "not settled" });
        span.end();
        loop?.end();
      },
    };
  };
}

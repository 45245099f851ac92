import {
  type Attributes,
  type AttributeValue,
  context,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
} from "@opentelemetry/api";
import { eventSignals, type SignalledEvent, type SignalledOutcome, type WorkerSinks } from "./event-signals.ts";
import { sampledTraceId, traceKeys } from "./log.ts";
import { contextBelow, parseHeaders } from "./propagation.ts";

export type BulkRequest = {
  readonly startedAt: number;
  readonly durationMs: number;
  readonly index: string;
  /** "failed": the request as a whole. */
  readonly result: "success" | "partial" | "failed";
  readonly error?: string;
  readonly items: readonly { readonly op: "index" | "delete"; readonly failureClass: string | null }[];
};

export type BatchSignals = {
  /** Runs the batch's work inside its span. */
  readonly run: <T>(work: () => T) => T;
  readonly bulkSent: (request: BulkRequest) => void;
  /** After the settle, from what the rows now say. `settled` are the ids that were still ours. */
  readonly settled: (
    outcomes: ReadonlyMap<bigint, SignalledOutcome>,
    settled: ReadonlySet<bigint>,
    settleMs: number,
  ) => void;
  /** The batch could not be settled: its lease runs out, and another claim sends it again. */
  readonly lost: (error: unknown) => void;
};

export type ClaimedBatch = { readonly claimBatchId: string; readonly events: readonly SignalledEvent[] };

/** Tells of a claim that found work; what it returns tells of the batch from there on. */
export type TellClaim = (
  batch: ClaimedBatch,
  startedAt: number,
  claimMs: number,
  claimMode: "atomic" | "non_atomic",
) => BatchSignals;

const maxLinks = 128;

function shared(values: readonly string[], mixed = "mixed"): string {
  const [first = "none", ...rest] = new Set(values);
  return rest.length === 0 ? first : mixed;
}

/** Of what has become somebody else's meanwhile. */
const mismatch: SignalledOutcome = { outcome: { kind: "skipped", reason: "owner_mismatch" } };

/** The batch's result, from those of its events: one decision, made once. */
function batchResult(outcomes: readonly SignalledOutcome[]): "ok" | "partial" | "retry" | "failed" {
  // Released is not done either: it will be tried again. What was skipped is not ours to call done.
  const bad = outcomes.filter(({ outcome }) => outcome.kind !== "done");
  if (bad.length === 0) return "ok";
  if (bad.length < outcomes.length) return "partial";
  const kinds = new Set(bad.map(({ outcome }) => outcome.kind));
  return kinds.has("fail") || (kinds.has("skipped") && kinds.size === 1) ? "failed" : "retry";
}

/** What the labs say of the batch: all that no two of its events say differently. */
function labsOf(outcomes: readonly SignalledOutcome[]): Attributes {
  const said = new Map<string, Set<AttributeValue | undefined>>();
  for (const { labs } of outcomes)
    for (const [key, value] of Object.entries(labs ?? {})) said.set(key, (said.get(key) ?? new Set()).add(value));
  return Object.fromEntries([...said].flatMap(([key, values]) => (values.size === 1 ? [[key, [...values][0]]] : [])));
}

/** Spans, counters and log lines of each batch, and of its events. */
export function batchSignals(sinks: WorkerSinks, ops: readonly string[]): TellClaim {
  const { log, metrics, tracing, identity, at, base } = sinks;
  const tellEvent = eventSignals(sinks, ops);
  const mode = identity.projection === "search" ? "es_bulk" : "sql";
  const itemLabelsOf = (op: "index" | "delete") => ({
    success: { ...at, op, result: "success" },
    failed: { ...at, op, result: "failed" },
  });
  const itemLabels = { index: itemLabelsOf("index"), delete: itemLabelsOf("delete") };

  return ({ claimBatchId, events }, startedAt, claimMs, claimMode) => {
    const claimedAt = startedAt + claimMs;
    // Ages go on by the monotonic clock: the wall clock may be set.
    const claimedTick = performance.now();
    const entityType = shared(events.map((e) => e.entityType));
    const op = shared(events.map((e) => e.op));
    const attempt = events.reduce((most, e) => Math.max(most, e.attempts), 0);
    metrics.observe("outbox_batch_size", at, events.length);
    const batchKeys = { "wordloom.claim_batch_id": claimBatchId, batch_size: events.length };
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
      tracing.tracer
        .startSpan(
          "outbox.claim_batch",
          {
            startTime: startedAt,
            attributes: { ...base, ...batchKeys, claim_mode: claimMode, claimed: events.length },
          },
          inLoop,
        )
        .end(claimedAt);
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
            entity_type: entityType,
            op,
            attempt,
            mode,
            "wordloom.links_dropped": Math.max(0, linked.length - maxLinks),
          },
        },
        inLoop,
      );
    }
    const keys = { claim_batch_id: claimBatchId, batch_size: events.length, ...traceKeys(span) };
    metrics.observe("outbox_claim_duration_seconds", at, claimMs / 1000, sampledTraceId(span));
    log.info(
      { event: "outbox.claim_batch", ...keys, claimed: events.length, claim_mode: claimMode },
      `Claimed ${events.length} outbox events`,
    );
    return {
      run: (work) => (span ? context.with(trace.setSpan(context.active(), span), work) : work()),
      bulkSent: (request) => {
        const failedItems = request.items.filter((i) => i.failureClass !== null).length;
        metrics.add("outbox_es_bulk_requests_total", { ...at, result: request.result });
        if (request.result === "failed") metrics.add("outbox_es_bulk_failed_requests_total", at);
        metrics.observe("outbox_es_bulk_request_duration_seconds", at, request.durationMs / 1000, sampledTraceId(span));
        const tally = metrics.tally();
        for (const item of request.items) {
          tally.add(
            "outbox_es_bulk_items_total",
            itemLabels[item.op][item.failureClass === null ? "success" : "failed"],
          );
          if (item.failureClass !== null)
            tally.add("outbox_es_bulk_item_failures_total", {
              ...at,
              op: item.op,
              failure_class: item.failureClass,
            });
        }
        tally.flush();
        if (!span) return;
        const client = tracing.tracer.startSpan(
          `bulk ${request.index}`,
          {
            kind: SpanKind.CLIENT,
            startTime: request.startedAt,
            attributes: {
              ...base,
              ...batchKeys,
              "db.system.name": "elasticsearch",
              "db.operation.name": "bulk",
              "db.collection.name": request.index,
              ...(request.items.length > 1 ? { "db.operation.batch.size": request.items.length } : {}),
              "wordloom.bulk.failed_count": failedItems,
              result: request.result,
              ...(request.error === undefined ? {} : { "error.type": request.error }),
            },
          },
          trace.setSpan(context.active(), span),
        );
        if (request.result === "failed") client.setStatus({ code: SpanStatusCode.ERROR });
        client.end(request.startedAt + request.durationMs);
      },
      settled: (outcomes, settled, settleMs) => {
        const ours = events.flatMap((event) => {
          const told = settled.has(event.id) ? outcomes.get(event.id) : undefined;
          return told ? [{ event, told }] : [];
        });
        const lost = events.filter(({ id }) => outcomes.has(id) && !settled.has(id));
        const mismatches = lost.length;
        const settledOutcomes = [...ours.map(({ told }) => told), ...lost.map(() => mismatch)];
        const waitedSeconds = (performance.now() - claimedTick) / 1000;
        metrics.observe("outbox_settle_duration_seconds", at, settleMs / 1000, sampledTraceId(span));
        if (mismatches > 0) metrics.add("outbox_owner_mismatch_skips_total", at, mismatches);
        const tally = metrics.tally();
        const tell = (event: SignalledEvent, told: SignalledOutcome) =>
          tellEvent(event, told, { claimBatchId, claimedAt, span, producers }, event.ageSeconds + waitedSeconds, tally);
        for (const { event, told } of ours) tell(event, told);
        for (const event of lost) tell(event, mismatch);
        tally.flush();
        const count = (kind: SignalledOutcome["outcome"]["kind"]) =>
          settledOutcomes.filter(({ outcome }) => outcome.kind === kind).length;
        // While the target is away events are still settled as superseded by newer ones, which wait: no success.
        if (settledOutcomes.some(({ outcome }) => outcome.kind === "done" && outcome.sent !== false))
          metrics.set("outbox_last_success_timestamp_seconds", at, Date.now() / 1000);
        const result = batchResult(settledOutcomes);
        const reason = shared(
          settledOutcomes.flatMap(({ outcome }) => (outcome.kind === "done" ? [] : [outcome.reason ?? outcome.kind])),
        );
        const done = count("done");
        const retries = count("retry");
        const failed = count("fail");
        const counts = {
          ok_count: done,
          retry_count: retries,
          failed_count: failed,
          success_count: done,
          failure_count: retries + failed,
        };
        if (span) {
          span.setAttributes({
            result,
            reason,
            ...counts,
            owner_mismatch: mismatches,
            ...labsOf(settledOutcomes),
          });
          if (result === "failed") span.setStatus({ code: SpanStatusCode.ERROR, message: reason });
          span.end();
          loop?.end();
        }
        const line = {
          event: "projection.process_batch",
          ...keys,
          entity_type: entityType,
          op,
          attempt,
          mode,
          result,
          reason,
          ...counts,
          owner_mismatch: mismatches,
        };
        const message = `Processed ${events.length} outbox events: ${result}`;
        if (result === "ok") log.info(line, message);
        else log.warn(line, message);
      },
      lost: (error) => {
        log.error(
          { event: "projection.batch_lost", ...keys, exc_info: error },
          "the batch could not be settled; its lease will run out and it will be sent again",
        );
        if (!span) return;
        const none = { ok_count: 0, retry_count: 0, failed_count: 0, success_count: 0, failure_count: 0 };
        span.setAttributes({ result: "failed", reason: "unknown", ...none });
        span.setStatus({ code: SpanStatusCode.ERROR, message: "not settled" });
        span.end();
        loop?.end();
      },
    };
  };
}

import { type Attributes, type Link, type SpanContext, SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { type ClaimedEvent, type Decision, type Op, type Outcome, ops, type Reclaimed } from "../events.ts";
import { sampledTraceId } from "./log.ts";
import type { Tally } from "./metrics.ts";
import type { Sinks } from "./signals.ts";

/** What became of one event of a batch: the decision, or that it belonged to another worker by the time of the settle. */
export type Ended = Omit<Decision, "outcome"> & {
  readonly outcome: Outcome | { readonly kind: "skipped"; readonly reason: "owner_mismatch" };
};

/** Why it is not done; undefined when nothing prevented it. */
export const reasonOf = ({ outcome }: Ended): string | undefined => ("reason" in outcome ? outcome.reason : undefined);

/** Identifies the event: what spans and log lines are searched by. */
type Named = Pick<Reclaimed, "id" | "entityType" | "entityId" | "op">;

/**
 * On every span of an event, `more` among them. The chronicle's are also searched by the names of drill H. What no two events share comes last: the serializer copies the rest
 * from span to span.
 */
export function eventAttributes(
  { identity, eventBase }: Pick<WorkerSinks, "identity" | "eventBase">,
  event: Named & Pick<Reclaimed, "eventVersion">,
  claimBatchId: string,
  attempt: number,
  result: string,
  reason: string,
  more: Attributes = {},
): Attributes {
  const id = event.id.toString();
  const version = event.eventVersion.toString();
  const attributes = {
    ...eventBase,
    "wordloom.claim_batch_id": claimBatchId,
    "wordloom.outbox_event_version": version,
    "wordloom.entity_type": event.entityType,
    "wordloom.outbox_op": event.op,
    "wordloom.outbox_attempts": attempt,
    result,
    reason,
    ...more,
    "wordloom.outbox_event_id": id,
    "wordloom.entity_id": event.entityId,
  };
  return identity.projection === "search"
    ? attributes
    : {
        ...attributes,
        "wordloom.outbox.id": id,
        "wordloom.entity.type": event.entityType,
        "wordloom.entity.id": event.entityId,
        "wordloom.outbox.op": event.op,
        "wordloom.outbox.event_version": version,
        "wordloom.outbox.attempts": attempt,
      };
}

/** On every log line of an event. */
export const eventNames = (event: Named, claimBatchId: string | null) => ({
  outbox_event_id: event.id.toString(),
  claim_batch_id: claimBatchId,
  entity_type: event.entityType,
  entity_id: event.entityId,
  op: event.op,
});

/** On every line of what became of an event. */
export const eventFields = (
  event: Named,
  claimBatchId: string | null,
  attempt: number,
  result: string,
  reason: string,
) => ({
  ...eventNames(event, claimBatchId),
  attempt,
  result,
  reason,
});

export type WorkerIdentity = {
  readonly projection: "search" | "chronicle";
  readonly workerId: string;
  readonly esIndex: string | null;
  readonly projectionVersion: number;
  /** On every span while an experiment is on. */
  readonly labs?: Attributes | null;
};

/** Where a worker's signals go, with what all of them say. */
export type WorkerSinks = Sinks & {
  readonly identity: WorkerIdentity;
  /** The labels of every metric. */
  readonly at: { readonly projection: string };
  /** On every span. */
  readonly base: Attributes;
  /** On every span of an event. */
  readonly eventBase: Attributes;
};

/** One event of a settled batch. */
export type TellEvent = (
  event: ClaimedEvent,
  ended: Ended,
  batch: {
    readonly claimBatchId: string;
    readonly claimedAt: number;
    /** To the batch's span, one list for all of its events; none with tracing off. */
    readonly links: Link[] | undefined;
    /** The spans that the events come from, by the event's id. */
    readonly producers: ReadonlyMap<bigint, SpanContext>;
    /** Log retries of events at debug only. */
    readonly quiet: boolean;
  },
  /** Seconds from append to settle. */
  settleAge: number,
  tally: Tally,
) => void;

/** Span (in the producer's trace, linked to its batch), counters and log line of each event. */
export function eventSignals(worker: WorkerSinks): TellEvent {
  const { log, tracing, identity, at } = worker;
  // The same object each time: what is counted is found by it.
  const labels = new Map(ops.map((op) => [op, { ...at, op }]));
  const verb = (op: string) =>
    identity.projection === "chronicle" ? "recorded" : op === "delete" ? "deleted" : "indexed";
  // Of an op that was written by hand there are none.
  const byOp = (op: Op) => labels.get(op) ?? { ...at, op };

  return (event, ended, { claimBatchId, claimedAt, links, producers, quiet }, settleAge, tally) => {
    const { op } = event;
    const { outcome, noopReason, warning } = ended;
    const reason = reasonOf(ended);
    const superseded = outcome.kind === "done" && outcome.result === "superseded";
    // What was not sent has not failed, whatever it waits for; nor was it an attempt.
    const unsent =
      outcome.kind === "release" || ((outcome.kind === "retry" || outcome.kind === "fail") && !outcome.sent);
    const failed = (outcome.kind === "retry" || outcome.kind === "fail") && !unsent;
    const attempt = unsent ? event.attempts - 1 : event.attempts;
    const result = outcome.kind === "done" ? "ok" : outcome.kind === "fail" ? "failed" : outcome.kind;
    const attributes = (): Attributes => {
      const more: Attributes = { ...ended.labs };
      if (ended.errorType != null) more["error.type"] = ended.errorType;
      if (outcome.kind === "done") more["wordloom.outbox_result"] = outcome.result;
      if (noopReason !== undefined)
        Object.assign(more, {
          noop: true,
          "wordloom.idempotent_noop": true,
          "wordloom.idempotent_noop_reason": noopReason,
        });
      if (superseded) Object.assign(more, { deduped: true });
      const all = eventAttributes(worker, event, claimBatchId, attempt, result, reason ?? "none", more);
      all["wordloom.outbox_age_seconds"] = settleAge;
      return all;
    };
    const own =
      links &&
      tracing.past(producers.get(event.id), {
        name: "outbox.process",
        kind: SpanKind.CONSUMER,
        startedAt: claimedAt,
        endedAt: Date.now(),
        links,
        attributes,
        ...(failed ? { status: { code: SpanStatusCode.ERROR, message: reason ?? "unknown" } } : {}),
      });
    const fields = () => ({
      event: "outbox.process",
      ...eventFields(event, claimBatchId, attempt, result, reason ?? "none"),
      error_type: ended.errorType ?? undefined,
      error: "error" in outcome ? outcome.error : undefined,
      trace_id: own?.traceId,
      span_id: own?.spanId,
    });
    // A trace leads to the line of each of its events.
    const level = own ? "info" : "debug";
    const doc = () => `${event.entityType}:${event.entityId}`;
    switch (outcome.kind) {
      case "done":
        tally.add("outbox_processed_total", byOp(op));
        tally.observe("outbox_event_age_seconds", at, settleAge, sampledTraceId(own));
        if (noopReason !== undefined) {
          tally.add("outbox_idempotent_noop_total", { ...at, op, reason: noopReason });
          log.warn(fields(), `Outbox ${op}: doc <${doc()}> not found in ES (noop)`);
        } else if (warning !== undefined) {
          log.warn({ ...fields(), warning }, `Outbox ${op}: <${doc()}> is not on every copy`);
        } else if (superseded) {
          tally.add("outbox_superseded_total", byOp(op));
          if (log.isLevelEnabled(level)) log[level](fields(), `Outbox ${op}: <${doc()}> superseded`);
        } else if (log.isLevelEnabled(level)) {
          log[level](fields(), `Outbox ${op}: ${verb(op)} <${doc()}>`);
        }
        break;
      case "retry":
      case "fail": {
        const { reason } = outcome;
        if (failed) tally.add("outbox_failed_total", { ...at, op, reason });
        tally.add(outcome.kind === "retry" ? "outbox_retry_scheduled_total" : "outbox_terminal_failed_total", {
          ...at,
          op,
          reason,
        });
        if (outcome.kind === "retry")
          log[quiet ? "debug" : "warn"](fields(), `Outbox ${op}: <${doc()}> will be tried again`);
        else log.error(fields(), `Outbox ${op}: <${doc()}> failed for good`);
        break;
      }
      case "skipped":
        if (log.isLevelEnabled(level)) log[level](fields(), `Outbox ${op}: <${doc()}> is somebody else's by now`);
        break;
      case "release":
        log.warn(fields(), `Outbox ${op}: <${doc()}> released`);
        break;
      default:
        outcome satisfies never;
    }
  };
}

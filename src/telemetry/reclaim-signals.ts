import { SpanKind, SpanStatusCode } from "@opentelemetry/api";
import type { Reclaimed } from "../events.ts";
import { eventAttributes, eventFields, type WorkerSinks } from "./event-signals.ts";
import { parseHeaders } from "./propagation.ts";

/** Reports events whose lease was taken away. */
export type TellReclaimed = (events: readonly Reclaimed[]) => void;

/** Counters and a log line for each event, in the trace of its write; and a span for an event that failed because of it, which no batch will report. */
export function reclaimSignals(worker: WorkerSinks): TellReclaimed {
  const { log, metrics, tracing, identity, at } = worker;

  function tell(event: Reclaimed): void {
    const { op, claimBatchId, status } = event;
    const failed = status === "failed";
    const reason = failed ? "lease_expired" : "none";
    const producer = tracing.enabled ? parseHeaders(event.traceparent, event.tracestate) : undefined;
    metrics.add("outbox_reclaimed_total", { ...at, why: event.why });
    if (failed)
      for (const name of ["outbox_failed_total", "outbox_terminal_failed_total"] as const)
        metrics.add(name, { ...at, op, reason });
    if (failed && tracing.enabled) {
      const now = Date.now();
      tracing.past(producer, {
        name: "outbox.process",
        kind: SpanKind.CONSUMER,
        startedAt: now,
        endedAt: now,
        attributes: () => eventAttributes(worker, event, claimBatchId ?? "none", event.attempts, status, reason),
        status: { code: SpanStatusCode.ERROR, message: reason },
      });
    }
    log[failed ? "error" : "warn"](
      {
        event: "outbox.reclaimed",
        ...eventFields(event, claimBatchId, event.attempts, status, reason),
        who: identity.workerId,
        from: event.from,
        why: event.why,
        reclaim_count: event.reclaimCount,
        ...(producer === undefined ? {} : { trace_id: producer.traceId, span_id: producer.spanId }),
      },
      `Outbox ${op}: <${event.entityType}:${event.entityId}> ${failed ? "failed for good" : "is to be claimed again"}`,
    );
  }

  return (events) => {
    if (events.length === 0) return;
    for (const event of events) tell(event);
    log.warn(
      { event: "outbox.reclaim_batch", reclaimed: events.length },
      `Reclaimed ${events.length} stuck outbox events`,
    );
  };
}

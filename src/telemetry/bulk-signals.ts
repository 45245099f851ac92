import { type Attributes, type SpanContext, SpanKind, SpanStatusCode } from "@opentelemetry/api";
import type { WorkerSinks } from "./event-signals.ts";
import { sampledTraceId } from "./log.ts";

export type BulkRequest = {
  readonly startedAt: number;
  readonly durationMs: number;
  readonly index: string;
  /** "failed": the request as a whole. */
  readonly result: "success" | "partial" | "failed";
  readonly error?: string;
  readonly items: readonly { readonly op: "index" | "delete"; readonly failureClass: string | null }[];
};

/** Counters of a request and its items, and its client span below that of its batch; `batchKeys` are the batch's own attributes. */
export function bulkSignals({
  metrics,
  tracing,
  at,
  base,
}: WorkerSinks): (request: BulkRequest, batchKeys: Attributes, batch: SpanContext | undefined) => void {
  // The same object each time: what is counted is found by it.
  const itemLabelsOf = (op: "index" | "delete") => ({
    success: { ...at, op, result: "success" },
    failed: { ...at, op, result: "failed" },
  });
  const itemLabels = { index: itemLabelsOf("index"), delete: itemLabelsOf("delete") };

  return (request, batchKeys, batch) => {
    const failedItems = request.items.filter((i) => i.failureClass !== null).length;
    metrics.add("outbox_es_bulk_requests_total", { ...at, result: request.result });
    if (request.result === "failed") metrics.add("outbox_es_bulk_failed_requests_total", at);
    metrics.observe("outbox_es_bulk_request_duration_seconds", at, request.durationMs / 1000, sampledTraceId(batch));
    const tally = metrics.tally();
    for (const { op, failureClass } of request.items) {
      tally.add("outbox_es_bulk_items_total", itemLabels[op][failureClass === null ? "success" : "failed"]);
      if (failureClass !== null)
        tally.add("outbox_es_bulk_item_failures_total", { ...at, op, failure_class: failureClass });
    }
    tally.flush();
    if (!batch) return;
    tracing.past(batch, {
      name: `bulk ${request.index}`,
      kind: SpanKind.CLIENT,
      startedAt: request.startedAt,
      endedAt: request.startedAt + request.durationMs,
      attributes: () => ({
        ...base,
        ...batchKeys,
        "db.system.name": "elasticsearch",
        "db.operation.name": "bulk",
        "db.collection.name": request.index,
        ...(request.items.length > 1 ? { "db.operation.batch.size": request.items.length } : {}),
        "wordloom.bulk.failed_count": failedItems,
        result: request.result,
        ...(request.error === undefined ? {} : { "error.type": request.error }),
      }),
      ...(request.result === "failed" ? { status: { code: SpanStatusCode.ERROR } } : {}),
    });
  };
}

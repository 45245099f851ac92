import { projections } from "../../events.ts";
import { atLeast, type Drill, everythingDone, holds, sameTrace, targetIsSource, told } from "../drill.ts";
import type { DrillOptions } from "../world.ts";
import { landWithAnother, replayedOnce, replayFailed } from "./steps.ts";

const experiment = ({ bulkSize, partialStatus }: DrillOptions) => ({
  OUTBOX_EXPERIMENT_ES_BULK_PARTIAL: "1",
  OUTBOX_EXPERIMENT_ES_BULK_PARTIAL_STATUS: String(partialStatus),
  OUTBOX_BULK_SIZE: String(bulkSize),
});

/** Drill D: of one bulk request one item is refused, and the others are done. */
export const esBulkPartial: Drill = {
  name: "es_bulk_partial",
  service: "search",
  inject: ({ options }) => experiment(options),
  run: async (stage) => {
    // Of one item nothing would be left to land.
    const count = Math.max(2, stage.options.triggerCount ?? 2);
    for (let n = 0; n < count; n += 1) await stage.createTag();
    const worker = await stage.holdingQueue(async () => {
      const started = await stage.worker("worker", experiment(stage.options));
      await started.scrape("before");
      return started;
    });
    await worker.counted("outbox_terminal_failed_total", {});
    await worker.counted("outbox_processed_total", { projection: projections.search });
    await worker.scrape("after");
    await worker.stop();
    await replayFailed(stage, "the partial answer was injected");
    await landWithAnother(stage);
  },
  checks: (evidence) => {
    const partial = evidence.spans.filter(
      ({ operation, tags }) => operation === "projection.process_batch" && tags["result"] === "partial",
    );
    const counts = partial.map(({ tags }) => [Number(tags["success_count"]), Number(tags["failure_count"])]);
    const { delta } = evidence;
    return [
      atLeast(
        "outbox_es_bulk_requests_total partial",
        delta("outbox_es_bulk_requests_total", { result: "partial" }),
        1,
      ),
      atLeast("outbox_es_bulk_items_total success", delta("outbox_es_bulk_items_total", { result: "success" }), 1),
      atLeast("outbox_es_bulk_items_total failed", delta("outbox_es_bulk_items_total", { result: "failed" }), 1),
      atLeast(
        "outbox_es_bulk_item_failures_total 4xx",
        delta("outbox_es_bulk_item_failures_total", { failure_class: "4xx" }),
        1,
      ),
      holds(
        "the batch's span counts both",
        "failure_count 1, and a success_count",
        counts.some(([well = 0, ill = 0]) => well >= 1 && ill === 1),
        counts,
      ),
      told(evidence, "of a partial batch", "projection.process_batch", { result: "partial" }),
      replayedOnce(evidence),
      sameTrace(evidence, projections.search),
      everythingDone(evidence),
      targetIsSource(evidence),
    ];
  },
};

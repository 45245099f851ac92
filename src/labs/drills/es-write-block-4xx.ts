import { projections } from "../../events.ts";
import { atLeast, type Drill, everythingDone, none, sameTrace, spanned, targetIsSource, told } from "../drill.ts";
import { blockWrites, replayedOnce, replayFailed } from "./steps.ts";

const reason = "es_4xx";

/** Drill C: the index refuses every write, which trying again cannot mend. */
export const esWriteBlock4xx: Drill = {
  name: "es_write_block_4xx",
  service: "search",
  inject: () => ({ "index.blocks.write": true }),
  run: async (stage) => {
    const worker = await stage.worker("worker");
    await worker.scrape("before");
    await blockWrites(stage, true);
    try {
      await stage.createTag();
      await worker.counted("outbox_terminal_failed_total", { reason });
      await worker.scrape("after");
    } finally {
      await blockWrites(stage, false);
    }
    await replayFailed(stage, "the write block is lifted");
    await stage.landed();
    await worker.scrape("recovered");
  },
  checks: (evidence) => [
    atLeast(`outbox_failed_total ${reason}`, evidence.delta("outbox_failed_total", { reason }), 1),
    atLeast(`outbox_terminal_failed_total ${reason}`, evidence.delta("outbox_terminal_failed_total", { reason }), 1),
    none("outbox_retry_scheduled_total", evidence.delta("outbox_retry_scheduled_total")),
    told(evidence, "of the failure with its reason", "outbox.process", { result: "failed", reason }),
    spanned(evidence, "of the failure, as an error", "outbox.process", { result: "failed", reason, error: true }),
    replayedOnce(evidence),
    sameTrace(evidence, projections.search),
    everythingDone(evidence),
    targetIsSource(evidence),
  ],
};

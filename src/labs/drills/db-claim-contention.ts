import { projections } from "../../events.ts";
import { atLeast, type Drill, everythingDone, none, sameTrace, targetIsSource } from "../drill.ts";
import { sumOf } from "../metrics.ts";
import type { DrillOptions } from "../world.ts";

const mismatches = "outbox_owner_mismatch_skips_total";
const labels = { projection: projections.search };

const experiment = ({ breakClaimSleep }: DrillOptions) => ({
  OUTBOX_EXPERIMENT_BREAK_CLAIM: "1",
  OUTBOX_EXPERIMENT_BREAK_CLAIM_SLEEP_SECONDS: String(breakClaimSleep),
  OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS: String(Math.max(1, breakClaimSleep)),
  OUTBOX_POLL_INTERVAL_MS: "50",
});

/** Drill E: two workers whose claims are no longer atomic take the same events; the fence at the settle keeps the result right. */
export const dbClaimContention: Drill = {
  name: "db_claim_contention",
  service: "search",
  inject: ({ options }) => experiment(options),
  run: async (stage) => {
    const { triggerCount = 4 } = stage.options;
    const env = experiment(stage.options);
    const workers = [await stage.worker("worker1", env), await stage.worker("worker2", env)];
    for (const [i, worker] of workers.entries()) await worker.scrape(`before-${i + 1}`);
    const skips = async () => {
      const pages = await Promise.all(workers.map((worker) => worker.metrics()));
      return pages.reduce((sum, page) => sum + sumOf(page, mismatches, labels), 0);
    };
    // Whether the two meet is a matter of moments: more is written until they have.
    await stage.until("an event that two workers took", async () => {
      for (let n = 0; n < triggerCount; n += 1) await stage.createTag();
      await stage.landed();
      return (await skips()) > 0;
    });
    for (const [i, worker] of workers.entries()) await worker.scrape(`after-${i + 1}`);
  },
  checks: (evidence) => {
    const sum = (name: string) => evidence.delta(name, labels, "-1") + evidence.delta(name, labels, "-2");
    return [
      atLeast(mismatches, sum(mismatches), 1),
      atLeast("outbox_processed_total", sum("outbox_processed_total"), 1),
      none("outbox_failed_total", sum("outbox_failed_total")),
      sameTrace(evidence, projections.search),
      everythingDone(evidence),
      targetIsSource(evidence),
    ];
  },
};

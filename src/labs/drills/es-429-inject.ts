import { projections } from "../../events.ts";
import { atLeast, type Drill, everythingDone, sameTrace, spanned, targetIsSource, told } from "../drill.ts";
import type { DrillOptions } from "../world.ts";
import { retried, retryThenLand } from "./steps.ts";

const reason = "es_429";

const experiment = ({ everyN }: DrillOptions) => ({
  OUTBOX_EXPERIMENT_ES_429_EVERY_N: String(everyN),
  OUTBOX_EXPERIMENT_ES_429_OPS: "upsert",
  OUTBOX_BASE_BACKOFF_SECONDS: "0.2",
});

/** Drill B: Elasticsearch has too much to do and says so, which is no fault of the document. */
export const es429Inject: Drill = {
  name: "es_429_inject",
  service: "search",
  inject: ({ options }) => experiment(options),
  run: async (stage) => {
    const worker = await stage.worker("worker", experiment(stage.options));
    await worker.scrape("before");
    const count = stage.options.triggerCount ?? stage.options.everyN;
    for (let n = 0; n < count; n += 1) await stage.createTag();
    await retryThenLand(stage, worker, reason);
  },
  checks: (evidence) => [
    ...retried(evidence, reason),
    atLeast(
      "outbox_es_bulk_item_failures_total 429",
      evidence.delta("outbox_es_bulk_item_failures_total", { failure_class: "429" }),
      1,
    ),
    told(evidence, "of the experiment, at the start", "labs.experiment", {}),
    spanned(evidence, "that were injected", "outbox.process", { "wordloom.labs.es_429.injected": true }),
    sameTrace(evidence, projections.search),
    everythingDone(evidence),
    targetIsSource(evidence),
  ],
};

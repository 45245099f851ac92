import { projections } from "../../events.ts";
import { atLeast, type Drill, type Evidence, everythingDone, sameTrace, spanned, targetIsSource } from "../drill.ts";
import { freePort } from "../processes.ts";
import { retried, retryThenLand } from "./steps.ts";

const reason = "es_connect";

/** An upsert whose delete is in the same batch is superseded, and the batch retried in part. */
const batchesTriedAgain = ({ spans }: Evidence): number =>
  spans.filter(
    ({ operation, tags }) =>
      operation === "projection.process_batch" && Number(tags["retry_count"]) > 0 && tags["reason"] === reason,
  ).length;

/** Drill A: Elasticsearch is not there, so that every event waits and is tried again. */
export const esDownConnect: Drill = {
  name: "es_down_connect",
  service: "search",
  inject: ({ options }) => ({ elastic_url: "a port where nothing listens", op: options.op }),
  run: async (stage) => {
    const away = { ELASTIC_URL: `http://127.0.0.1:${freePort()}`, OUTBOX_BASE_BACKOFF_SECONDS: "0.2" };
    const worker = await stage.worker("worker", away);
    await worker.scrape("before");
    const id = await stage.createTag();
    if (stage.options.op === "delete") await stage.deleteTag(id);
    await retryThenLand(stage, worker, reason);
  },
  checks: (evidence) => [
    ...retried(evidence, reason),
    spanned(evidence, "of a retry with its reason", "outbox.process", { result: "retry", reason }),
    atLeast("spans of a batch that counts its retries", batchesTriedAgain(evidence), 1),
    sameTrace(evidence, projections.search),
    everythingDone(evidence),
    targetIsSource(evidence),
  ],
};

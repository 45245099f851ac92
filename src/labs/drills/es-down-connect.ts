import { projections } from "../../telemetry/keys.ts";
import {
  atLeast,
  type Drill,
  type Evidence,
  everythingDone,
  none,
  sameTrace,
  spanned,
  targetIsSource,
  told,
} from "../drill.ts";
import { freePort } from "../processes.ts";

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
    await worker.counted("outbox_retry_scheduled_total", { reason });
    await worker.scrape("after");
    await worker.stop();
    const after = await stage.worker("worker-after");
    await stage.landed();
    await after.scrape("recovered");
  },
  checks: (evidence) => [
    atLeast(`outbox_retry_scheduled_total ${reason}`, evidence.delta("outbox_retry_scheduled_total", { reason }), 1),
    atLeast(`outbox_failed_total ${reason}`, evidence.delta("outbox_failed_total", { reason }), 1),
    none("outbox_terminal_failed_total", evidence.delta("outbox_terminal_failed_total")),
    told(evidence, "of a retry with its reason", "outbox.process", { result: "retry", reason }),
    spanned(evidence, "of a retry with its reason", "outbox.process", { result: "retry", reason }),
    atLeast("spans of a batch that counts its retries", batchesTriedAgain(evidence), 1),
    sameTrace(evidence, projections.search),
    everythingDone(evidence),
    targetIsSource(evidence),
  ],
};

import { projections } from "../../events.ts";
import { atLeast, type Drill, everythingDone, holds, none, sameTrace, spanned, targetIsSource } from "../drill.ts";

/** Drill G: the same delete is delivered again and again, and one of a document that never was. */
export const duplicateDelivery: Drill = {
  name: "duplicate_delivery",
  service: "search",
  inject: ({ options }) => ({ delete_count: options.deleteCount, delete_of_an_absent_document: true }),
  run: async (stage) => {
    const worker = await stage.worker("worker");
    await worker.scrape("before");
    const { landed } = stage;
    const id = await stage.createTag();
    await landed();
    await stage.deleteTag(id);
    await landed();
    const deleted = (await stage.searchEvents()).at(-1);
    if (deleted === undefined) throw new Error("a delete without an event");
    const again = { entityType: "tag", entityId: id, op: "delete", version: deleted.event_version };
    for (let n = 0; n < stage.options.deleteCount; n += 1) {
      await stage.appendEvent("search", again);
      await landed();
    }
    await stage.appendEvent("search", { ...again, entityId: crypto.randomUUID() });
    await landed();
    await worker.counted("outbox_processed_total", { projection: projections.search }, 3 + stage.options.deleteCount);
    await worker.scrape("after");
  },
  checks: (evidence) => {
    const labels = { projection: projections.search };
    const absent = { ...labels, op: "delete", reason: "es_404" };
    const noops = evidence.lines.filter(
      ({ message }) => typeof message === "string" && message.endsWith("not found in ES (noop)"),
    );
    return [
      atLeast("outbox_processed_total", evidence.delta("outbox_processed_total", labels), 3),
      none("outbox_failed_total", evidence.delta("outbox_failed_total")),
      atLeast("outbox_superseded_total", evidence.delta("outbox_superseded_total", labels), 1),
      atLeast("outbox_idempotent_noop_total es_404", evidence.delta("outbox_idempotent_noop_total", absent), 1),
      atLeast("log lines of a noop", noops.length, 1),
      spanned(evidence, "of a noop", "outbox.process", {
        "wordloom.idempotent_noop": true,
        "wordloom.idempotent_noop_reason": "es_404",
      }),
      holds(
        "Elasticsearch has none of the documents",
        "no version",
        evidence.documents.length === 2 && evidence.documents.every((pair) => pair.target_version === null),
        evidence.documents,
      ),
      sameTrace(evidence, projections.search),
      everythingDone(evidence),
      targetIsSource(evidence),
    ];
  },
};

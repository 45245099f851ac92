import { sql } from "drizzle-orm";
import { projections } from "../../events.ts";
import { type Drill, everythingDone, holds, sameTrace, spanned, targetIsSource, told } from "../drill.ts";
import { readRecord } from "../evidence.ts";
import type { Stage } from "../stage.ts";

const versions = [1, 2] as const;

async function probe(stage: Stage, id: string): Promise<unknown> {
  const [row] = await stage.db.execute(
    sql`select id::text, projection_version, event_type, summary from chronicle_entries where id = ${id}::uuid`,
  );
  return row ?? null;
}

/** Drill H: the rules of a projection change, and the same event goes through the old ones and the new. */
export const projectionVersion: Drill = {
  name: "projection_version",
  service: "chronicle",
  inject: () => ({ CHRONICLE_PROJECTION_VERSION: versions }),
  run: async (stage) => {
    await stage.createTag();
    const done = async () => (await stage.chronicleEvents()).every(({ status }) => status === "done");
    for (const version of versions) {
      const [event] = await stage.chronicleEvents();
      if (event === undefined) throw new Error("a tag without a chronicle event");
      const { entity_id: entityId } = event;
      if (version !== versions[0])
        await stage.appendEvent("chronicle", { entityType: "chronicle_event", entityId, op: "upsert", version: "0" });
      const env = { CHRONICLE_PROJECTION_VERSION: String(version) };
      const worker = await stage.holdingQueue(async () => {
        const started = await stage.worker(`worker-v${version}`, env, ["--projection", "chronicle"]);
        await started.scrape(`before-v${version}`);
        return started;
      });
      await stage.until("the chronicle's event to be done", done);
      await worker.scrape(`after-v${version}`);
      await worker.stop();
      stage.evidence.write("_chronicle_event_id.txt", `${entityId}\n`);
      stage.evidence.write(`_probe_entry_v${version}.json`, await probe(stage, entityId));
    }
    await stage.worker("worker-after");
    await stage.landed();
  },
  checks: (evidence) => {
    const probes = versions.map((version) => readRecord(evidence.dir, `_probe_entry_v${version}.json`));
    return [
      ...versions.map((version, i) =>
        holds(
          `the entry after version ${version}`,
          `projection_version ${version}`,
          probes[i]?.["projection_version"] === version,
          probes[i]?.["projection_version"] ?? null,
        ),
      ),
      holds(
        "both are of one event",
        "the same id",
        probes[0]?.["id"] === probes[1]?.["id"],
        probes.map((p) => p?.["id"]),
      ),
      ...versions.map((version) =>
        told(evidence, `of version ${version}`, "outbox.process", {
          projection: projections.chronicle,
          projection_version: version,
        }),
      ),
      ...versions.map((version) =>
        spanned(evidence, `of version ${version}`, "outbox.process", {
          projection_version: version,
          "wordloom.projection": projections.chronicle,
        }),
      ),
      sameTrace(evidence, projections.chronicle),
      everythingDone(evidence),
      targetIsSource(evidence),
    ];
  },
};

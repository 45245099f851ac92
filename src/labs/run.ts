import { sql } from "drizzle-orm";
import { array } from "../db/sql.ts";
import { projections } from "../events.ts";
import { obsSchema } from "../telemetry/keys.ts";
import { type DocumentPair, type Drill, serviceOf } from "./drill.ts";
import { createEvidence } from "./evidence.ts";
import { exportTraces } from "./export.ts";
import { menu } from "./menu.ts";
import { openStage, type Stage } from "./stage.ts";
import type { DrillOptions, World } from "./world.ts";

const labId = "S3A-2A-3A";
const patienceMs = 10_000;
const lookbackMs = 3_600_000;

/** What Postgres and Elasticsearch have of the drill's entities. */
async function documents({ db, client, index, entities }: Stage): Promise<DocumentPair[]> {
  const rows = await db.execute<{ id: string; version: string }>(
    sql`select entity_id::text as id, event_version::text as version from search_index
         where entity_id = any(${array("uuid", entities())}) and deleted_at is null`,
  );
  const source = new Map(rows.map(({ id, version }) => [id, version]));
  return await Promise.all(
    entities().map(async (id) => {
      const { found, _version: version } = await client.get(
        { index, id: `tag:${id}`, _source: false },
        { ignore: [404] },
      );
      return {
        entity_id: id,
        source_version: source.get(id) ?? null,
        target_version: found ? String(version) : null,
      };
    }),
  );
}

async function probe(stage: Stage, drill: Drill): Promise<void> {
  const { evidence } = stage;
  const rows = await stage.events();
  const lines = (values: readonly (string | null)[]) =>
    `${[...new Set(values.filter((v) => v !== null))].join("\n")}\n`;
  evidence.write("_appended.json", stage.appended());
  evidence.write("_rows.json", rows);
  evidence.write("_documents.json", await documents(stage));
  // Each queue counts its own ids.
  const own = rows.filter((row) => row.projection === projections[drill.service]);
  evidence.write("_outbox_event_id.txt", lines(own.map(({ id }) => id)));
  evidence.write("_entity_id.txt", lines(stage.entities()));
  evidence.write("_claim_batch_id.txt", lines(own.map((row) => row.claim_batch_id)));
}

/** Takes what the drill has written out of the library again, and lets it land. */
async function tidy(stage: Stage): Promise<void> {
  for (const id of stage.tags()) await stage.deleteTag(id);
  await stage.worker("tidy");
  await stage.landed();
}

/**
 * Runs a drill and leaves its evidence, sealed, in a folder of its own, whose path it returns. Throws a CommandError when the drill does not come to its end; the folder
 * holds what there was then, without a seal.
 */
export async function runDrill(
  drill: Drill,
  world: World,
  run: {
    readonly outdir: string;
    readonly runId: string;
    readonly envFile: string | undefined;
    readonly options: DrillOptions;
  },
): Promise<string> {
  const { runId, options } = run;
  const evidence = createEvidence(run.outdir, drill.name, runId);
  evidence.write("_recipe.json", {
    lab_id: labId,
    scenario: drill.name,
    drill: menu.find(({ name }) => name === drill.name)?.letter ?? null,
    run_id: runId,
    created_at: new Date().toISOString(),
    env_file: run.envFile ?? null,
    service: serviceOf(drill),
    obs_schema: obsSchema,
    inject: drill.inject({ options }),
    index: world.index,
    options,
  });
  const stage = await openStage(world, runId, options, evidence);
  try {
    // Of one that does not come to its end, too, as far as there is somebody to ask.
    await drill.run(stage).catch(async (error: unknown) => {
      await probe(stage, drill).catch(() => undefined);
      throw error;
    });
    await probe(stage, drill);
    await tidy(stage);
  } finally {
    await stage.close();
  }
  const how = { url: world.tracesUrl, service: serviceOf(drill), lookbackMs, limit: 50, patienceMs };
  if (!drill.exportsItself) await exportTraces(evidence, await stage.events(), how);
  evidence.seal();
  return evidence.dir;
}

import { rmSync } from "node:fs";
import { join } from "node:path";
import { isPostmasterOf, readPostmaster } from "../embedded/postgres/postmaster.ts";
import { CommandError } from "../errors.ts";
import { type Drill, serviceOf } from "../labs/drill.ts";
import { blockWrites } from "../labs/drills/steps.ts";
import { drillsOf } from "../labs/drills.ts";
import { findRun, openFolder, pruneRuns, readList, tampered } from "../labs/evidence.ts";
import { exportFound, exportTraces } from "../labs/export.ts";
import type { TraceQuery } from "../labs/jaeger.ts";
import type { DrillName } from "../labs/menu.ts";
import { runDrill } from "../labs/run.ts";
import { verifyRun } from "../labs/verify.ts";
import type { DrillOptions } from "../labs/world.ts";
import type { EventRow } from "../outbox/rows.ts";
import { tracesEndpoint } from "../telemetry/collector-address.ts";
import { connectTo } from "./elasticsearch.ts";
import { alone, jaegerUrl, labsSettings, openWorld, ownTraces, storeAway } from "./labs-world.ts";
import type { Env } from "./settings.ts";
import { openStore } from "./store.ts";

/** Runs drills one after the other; `begun` and `ended` hear of each. Throws a CommandError when one does not come to its end. */
export async function runLabs(
  env: Env,
  names: readonly DrillName[],
  run: {
    readonly outdir: string;
    readonly runId: string;
    readonly envFile: string | undefined;
    readonly traces: string | undefined;
    readonly options: DrillOptions;
    readonly signal: AbortSignal;
  },
  begun: (name: DrillName) => void,
  ended: (name: DrillName, dir: string) => void,
): Promise<void> {
  await using resources = new AsyncDisposableStack();
  const apart = labsSettings(env);
  const store = await openStore(apart.settings, "applied", "wordloom-labs", resources);
  await alone(store, async () => {
    const world = await openWorld(apart, store, run.traces, run.signal, resources);
    for (const drill of drillsOf(names)) {
      begun(drill.name);
      ended(drill.name, await runDrill(drill, world, run));
    }
  });
}

/** Checks a run of each drill, by default the newest, against what the drill promises. Reads only the evidence. Throws a CommandError when there is no run. */
export const verifyLabs = (
  names: readonly DrillName[],
  outdir: string,
  runId: string | undefined,
): ReturnType<typeof verifyRun>[] =>
  drillsOf(names).map((drill) => verifyRun(drill, findRun(outdir, drill.name, runId)));

/** Exports the traces of a run of each drill again, from a Jaeger or the labs' own trace store. Returns their folders, and the number of traces. */
export const exportLabs = async (
  env: Env,
  names: readonly DrillName[],
  run: Parameters<typeof exportLab>[2],
): Promise<readonly { readonly dir: string; readonly traces: number }[]> => {
  const exported = [];
  for (const drill of drillsOf(names)) exported.push(await exportLab(env, drill, run));
  return exported;
};

async function exportLab(
  env: Env,
  drill: Drill,
  run: {
    readonly outdir: string;
    readonly runId: string | undefined;
    readonly traces: string | undefined;
    readonly service: string | undefined;
    readonly lookbackMs: number;
    readonly limit: number;
  },
): Promise<{ readonly dir: string; readonly traces: number }> {
  const dir = findRun(run.outdir, drill.name, run.runId);
  const changed = tampered(dir);
  if (changed === undefined || changed.length > 0)
    throw new CommandError(
      "unproven",
      `${dir} has changed since its run (${changed?.join(", ") ?? "the run did not end"}); nothing was added`,
    );
  const { settings, folder } = labsSettings(env);
  await using resources = new AsyncDisposableStack();
  const kept = async () => {
    const collector = await ownTraces(join(folder, drill.exportsItself ? "traces-of-a-drill" : "traces"), 0);
    resources.defer(() => collector.stop());
    return collector.queryUrl;
  };
  const own = drill.exportsItself === true || tracesEndpoint(settings.config) === undefined;
  const url = own ? await kept() : (run.traces ?? jaegerUrl);
  const evidence = openFolder(dir);
  const traces = await exportTraces(evidence, readList(dir, "_rows.json") as readonly EventRow[], {
    url,
    service: run.service ?? serviceOf(drill),
    lookbackMs: run.lookbackMs,
    limit: run.limit,
    patienceMs: 0,
  }).catch(storeAway(url));
  evidence.seal();
  return { dir, traces };
}

/** Keeps the traces that one question finds in a Jaeger. Returns the folder and how many. Throws a CommandError when it does not answer. */
export async function exportJaeger(
  query: TraceQuery,
  from: { readonly url: string | undefined; readonly lookbackMs: number; readonly limit: number },
  to: { readonly outdir: string; readonly runId: string },
): Promise<{ readonly dir: string; readonly traces: number }> {
  const evidence = openFolder(join(to.outdir, to.runId));
  const url = from.url ?? jaegerUrl;
  const traces = await exportFound(evidence, query, { ...from, url }).catch(storeAway(url));
  return { dir: evidence.dir, traces };
}

/** Throws a CommandError while a server works in it. */
async function removeData(folder: string): Promise<void> {
  const cluster = join(folder, "postgres", "data");
  const server = await readPostmaster(cluster);
  if (server && (await isPostmasterOf(cluster, server.pid)))
    throw new CommandError(
      "refused",
      `a drill is running in ${folder}, or was killed and left its Postgres behind (process ${server.pid}); end it first`,
    );
  rmSync(folder, { recursive: true, force: true });
}

/**
 * Cleans up what an interrupted drill may have left (the write block of an Elasticsearch that is not the labs' own), and the oldest runs; with `data` the labs' own
 * servers as well. Returns the runs that went.
 */
export async function cleanLabs(
  env: Env,
  names: readonly DrillName[],
  clean: { readonly outdir: string; readonly keepLast: number | undefined; readonly data: boolean },
): Promise<string[]> {
  const { settings, folder } = labsSettings(env);
  if (settings.config.ELASTIC_URL !== undefined && names.includes("es_write_block_4xx")) {
    await using resources = new AsyncDisposableStack();
    const client = await connectTo(settings.config.ELASTIC_URL, settings, resources);
    if (await client.indices.existsAlias({ name: settings.index }))
      await blockWrites({ client, index: settings.index }, false);
  }
  if (clean.data) await removeData(folder);
  const { keepLast } = clean;
  if (keepLast === undefined) return [];
  return names.flatMap((name) => pruneRuns(clean.outdir, name, keepLast).map((run) => join(name, run)));
}

import { queues } from "../outbox/queue.ts";
import { type ReplayRequest, replay, replayable } from "../outbox/replay.ts";
import { openWakeUps } from "../outbox/wake.ts";
import { type Env, readSettings } from "./settings.ts";
import { openStore, reporting } from "./store.ts";

export type ReplayReport = {
  readonly projection: string;
  readonly replayed: readonly string[];
  readonly dry_run: boolean;
};

/** Puts failed events of one projection back into its queue, or with `dryRun` says which. Throws a CommandError when the database cannot be used. */
export async function replayFailed(
  env: Env,
  projection: "search" | "chronicle",
  request: ReplayRequest,
  dryRun: boolean,
): Promise<ReplayReport> {
  await using resources = new AsyncDisposableStack();
  const store = await openStore(readSettings(env), "required", "wordloom-replay", resources);
  const queue = queues[projection];
  const { db } = store.database;
  const ids = await reporting(store.address, () =>
    dryRun ? replayable(db, queue, request) : replay(db, queue, request),
  );
  if (!dryRun && ids.length > 0) {
    const wakeUps = openWakeUps(store.database);
    wakeUps.announce();
    await wakeUps.close();
  }
  return { projection: queue.projection, replayed: ids.map(String), dry_run: dryRun };
}

import type { Db } from "../db/client.ts";
import { queues } from "../outbox/queue.ts";
import { openWakeUps } from "../outbox/wake.ts";
import { rebuildChronicle } from "../projection/chronicle/rebuild.ts";
import { emitOutbox, type Progress } from "../projection/rebuild.ts";
import { type Rebuilt, rebuildSearch } from "../projection/search/rebuild.ts";
import { mayComeBack } from "../search/client.ts";
import { prepareIndex, reachElasticsearch, unusable } from "./elasticsearch.ts";
import type { ProjectionName } from "./projections.ts";
import { type Env, readSettings } from "./settings.ts";
import { openPool, openStore, reporting, type Store } from "./store.ts";

type Request = { readonly signal: AbortSignal; readonly onProgress: Progress };

export type RebuildReport = { readonly projection: string; readonly seconds: number } & (
  | ({ readonly kind: "rebuilt" } & Rebuilt)
  | { readonly kind: "rewritten"; readonly events: number; readonly written: number }
  | { readonly kind: "emitted"; readonly events: number }
);

/** What each way of rebuilding gets. */
type Task = Request & { readonly store: Store; readonly db: Db; readonly resources: AsyncDisposableStack };

async function newIndex({ store, db, resources, signal, onProgress }: Task) {
  const { settings } = store;
  const { config, index, environment } = settings;
  const client = await reachElasticsearch(settings, resources);
  const prepared = await prepareIndex(client, settings);
  // Here it is needed at once.
  if (typeof prepared === "object") throw prepared.away;
  const rebuilt = await rebuildSearch(db, client, {
    search: { alias: index, environment },
    maxBytes: config.OUTBOX_BULK_MAX_BYTES,
    timeoutMs: config.ELASTIC_REQUEST_TIMEOUT_MS,
    signal,
    onProgress,
  }).catch((error: unknown) => {
    throw mayComeBack(error) ? unusable(settings, error) : error;
  });
  return { kind: "rebuilt", ...rebuilt } as const;
}

async function newEntries({ store, db, signal, onProgress }: Task) {
  const projectionVersion = store.settings.config.CHRONICLE_PROJECTION_VERSION;
  return { kind: "rewritten", ...(await rebuildChronicle(db, { projectionVersion, signal, onProgress })) } as const;
}

/**
 * Rebuilds a projection from Postgres; with `emitOutbox` by queueing an event for each row, for the workers to process. Throws a CommandError when a server cannot be reached,
 * another rebuild is running, or `signal` fires.
 */
export async function rebuild(
  env: Env,
  name: ProjectionName,
  request: Request & { readonly emitOutbox: boolean },
): Promise<RebuildReport> {
  await using resources = new AsyncDisposableStack();
  const store = await openStore(readSettings(env), "required", "wordloom-rebuild", resources);
  const wakeUps = openWakeUps(store.database);
  resources.defer(() => wakeUps.close());
  // One connection holds the lock, two read ahead and write. A statement may go through a whole table.
  const { db } = openPool(store, "wordloom-rebuild", resources, { max: 3, statementTimeoutMs: 3_600_000 });
  const onProgress: Progress = (done, total) => {
    if (request.emitOutbox) wakeUps.announce();
    request.onProgress(done, total);
  };
  const task = { store, db, resources, signal: request.signal, onProgress };
  return await reporting(store.address, async () => {
    const startedAt = performance.now();
    const made = request.emitOutbox
      ? ({ kind: "emitted", events: await emitOutbox(db, queues[name], task) } as const)
      : await (name === "search" ? newIndex : newEntries)(task);
    wakeUps.announce();
    return { projection: queues[name].projection, seconds: (performance.now() - startedAt) / 1000, ...made };
  });
}

import { queues } from "../outbox/event.ts";
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

/** One connection holds the lock, two read ahead and write. A statement may go through a whole table. */
const openDb = (store: Store, resources: AsyncDisposableStack) =>
  openPool(store, "wordloom-rebuild", resources, { max: 3, statementTimeoutMs: 3_600_000 }).db;

async function emit(
  store: Store,
  name: ProjectionName,
  { signal, onProgress }: Request,
  resources: AsyncDisposableStack,
) {
  const db = openDb(store, resources);
  const wakeUps = openWakeUps(store.database);
  resources.defer(() => wakeUps.close());
  const events = await emitOutbox(db, queues[name], {
    signal,
    onProgress: (done, total) => {
      wakeUps.announce();
      onProgress(done, total);
    },
  });
  return { kind: "emitted", events } as const;
}

/** Elasticsearch is needed, there and then. */
async function newIndex(store: Store, { signal, onProgress }: Request, resources: AsyncDisposableStack) {
  const { settings } = store;
  const { config, index } = settings;
  const client = await reachElasticsearch(settings, resources);
  const prepared = await prepareIndex(client, settings);
  if (typeof prepared === "object") throw unusable(settings, prepared.away);
  const db = openDb(store, resources);
  const rebuilt = await rebuildSearch(db, client, {
    alias: index,
    maxBytes: config.OUTBOX_BULK_MAX_BYTES,
    timeoutMs: config.ELASTIC_REQUEST_TIMEOUT_MS,
    signal,
    onProgress,
  }).catch((error: unknown) => {
    throw mayComeBack(error) ? unusable(settings, error) : error;
  });
  const wakeUps = openWakeUps(store.database);
  wakeUps.announce();
  await wakeUps.close();
  return { kind: "rebuilt", ...rebuilt } as const;
}

async function newEntries(store: Store, { signal, onProgress }: Request, resources: AsyncDisposableStack) {
  const db = openDb(store, resources);
  const projectionVersion = store.settings.config.CHRONICLE_PROJECTION_VERSION;
  return { kind: "rewritten", ...(await rebuildChronicle(db, { projectionVersion, signal, onProgress })) } as const;
}

/**
 * Makes a projection anew from Postgres; with `emitOutbox` by an event for each row, for the workers to do. Throws a CommandError when a server cannot be reached,
 * another rebuild is running, or `signal` fires.
 */
export async function rebuild(
  env: Env,
  name: ProjectionName,
  request: Request & { readonly emitOutbox: boolean },
): Promise<RebuildReport> {
  await using resources = new AsyncDisposableStack();
  const store = await openStore(readSettings(env), "required", "wordloom-rebuild", resources);
  return await reporting(store.address, async () => {
    const startedAt = performance.now();
    const made = request.emitOutbox
      ? await emit(store, name, request, resources)
      : await (name === "search" ? newIndex : newEntries)(store, request, resources);
    return { projection: queues[name].projection, seconds: (performance.now() - startedAt) / 1000, ...made };
  });
}

import { dirname, join } from "node:path";
import { sql } from "drizzle-orm";
import { type DatabaseAddress, describeAddress } from "../db/address.ts";
import { tryLock } from "../db/lock.ts";
import { array } from "../db/sql.ts";
import { type Collector, startCollector } from "../embedded/collector/collector.ts";
import { CommandError, messageOf } from "../errors.ts";
import { blockWrites } from "../labs/drills/steps.ts";
import { readServices } from "../labs/jaeger.ts";
import type { World } from "../labs/world.ts";
import { readBacklog } from "../outbox/backlog.ts";
import { queues } from "../outbox/queue.ts";
import { dropUnfinished } from "../outbox/rows.ts";
import { tracesEndpoint } from "../telemetry/collector-address.ts";
import { connectTo, elasticsearchUrl, prepareIndex, shown, unusable } from "./elasticsearch.ts";
import { type Env, readSettings, type Settings } from "./settings.ts";
import type { Store } from "./store.ts";

/** Where the user's own Jaeger answers by default. */
export const jaegerUrl = "http://127.0.0.1:16686";

/** What is the labs' alone: their Postgres, their search engine and their traces, where no others are given. */
const folderOf = ({ dataDir }: Settings): string => join(dataDir, "labs");

/**
 * The settings of a drill: the environment test unless told otherwise, and nothing that users have written: where no server is given, servers of the labs' own. Throws a
 * CommandError outside dev and test.
 */
export function labsSettings(env: Env): { readonly env: Env; readonly settings: Settings; readonly folder: string } {
  const tested = { ...env, WORDLOOM_ENV: env["WORDLOOM_ENV"] || "test" };
  const settings = readSettings(tested);
  if (settings.environment !== "test" && settings.environment !== "dev")
    throw new CommandError("refused", "labs break things on purpose; set WORDLOOM_ENV to test or dev");
  const folder = folderOf(settings);
  // A connection holds the labs' lock, another one the queues.
  const pool = { DATABASE_POOL_SIZE: "5" };
  const apart = { ...tested, ...pool, WORDLOOM_DATA_DIR: folder, EMBEDDED_ELASTIC_PORT: "0" };
  return { env: apart, settings: readSettings(apart), folder };
}

/** As a connection string of libpq's; of the embedded server. */
function urlOf({ database, socketPath }: DatabaseAddress): string {
  if (socketPath === undefined) throw new Error("the embedded Postgres has no socket");
  return `postgres:///${encodeURIComponent(database)}?host=${encodeURIComponent(dirname(socketPath))}&user=postgres`;
}

/** What `work` and `up` are called in pg_stat_activity: each listens on a connection for as long as it runs. */
const workers = ["wordloom-worker", "wordloom-up"];
const patienceMs = 3000;

/** Drills count events and wait for their own workers: no other may run. Throws a CommandError when one does, or when the queues hold earlier events. */
async function refuseOthers({ address, database: { db }, settings }: Store): Promise<void> {
  const where = describeAddress(address);
  const others = async () => {
    const rows = await db.execute(
      sql`select 1 from pg_stat_activity where datname = current_database() and application_name = any(${array("text", workers)}) limit 1`,
    );
    return rows.length > 0;
  };
  // Postgres takes a moment to notice that one has gone.
  for (const end = performance.now() + patienceMs; (await others()) && performance.now() < end; ) await Bun.sleep(100);
  if (await others())
    throw new CommandError(
      "refused",
      `a worker is running on ${where}; stop it (workers left by a killed drill exit within 15 minutes)`,
    );
  const backlogs = await Promise.all(Object.values(queues).map((queue) => readBacklog(db, queue, 0)));
  const waiting = backlogs.reduce((sum, { lag }) => sum + lag, 0);
  if (waiting === 0) return;
  // Left by a drill that was stopped: nobody misses them in the labs' own database.
  if (settings.address === undefined) return await dropUnfinished(db);
  throw new CommandError(
    "refused",
    `the queues of ${where} still hold ${waiting} earlier events; run \`wordloom work\` until they are empty`,
  );
}

/** Runs `work` while no other drill runs on the database. Throws a CommandError when one does. */
export const alone = async <T>({ address, database: { db } }: Store, work: () => Promise<T>): Promise<T> =>
  await db.transaction(async (tx) => {
    await tx.execute(sql`set local idle_in_transaction_session_timeout = 0`);
    if (!(await tryLock(tx, "wordloom labs")))
      throw new CommandError(
        "refused",
        `another \`wordloom labs run\` is running on ${describeAddress(address)}; wait until it has ended`,
      );
    return await work();
  });

/** A trace store of the labs' own on one of its folders. Throws a CommandError when another process has it. */
export async function ownTraces(folder: string, port: number): Promise<Collector> {
  try {
    return await startCollector({ dataDir: folder, port });
  } catch (error) {
    throw new CommandError("failed", `${messageOf(error)}; wait until the drill that uses it has ended`, {
      cause: error,
    });
  }
}

export async function openWorld(
  { env, settings, folder }: ReturnType<typeof labsSettings>,
  store: Store,
  traces: string | undefined,
  signal: AbortSignal,
  resources: AsyncDisposableStack,
): Promise<World> {
  const { config } = settings;
  await refuseOthers(store);
  const elasticUrl = await elasticsearchUrl(settings, resources);
  const client = await connectTo(elasticUrl, settings, resources);
  const prepared = await prepareIndex(client, settings);
  if (typeof prepared === "object") throw unusable(settings, prepared.away);
  // Of a drill that was killed.
  await blockWrites({ client, index: settings.index }, false);
  const given = tracesEndpoint(config);
  const collector = given === undefined ? await ownTraces(join(folder, "traces"), 0) : undefined;
  if (collector) resources.defer(() => collector.stop());
  const tracesUrl = collector?.queryUrl ?? traces ?? jaegerUrl;
  await readServices(tracesUrl).catch(storeAway(tracesUrl));
  // How the queue works is the drill's affair.
  const others = Object.entries(env).filter(([name]) => !name.startsWith("OUTBOX_"));
  return {
    db: store.database.db,
    client,
    index: settings.index,
    signal,
    env: {
      ...Object.fromEntries(others),
      DATABASE_URL: config.DATABASE_URL ?? urlOf(store.address),
      ELASTIC_URL: elasticUrl,
      ELASTIC_INDEX: settings.index,
      LOG_JSON: "1",
      LOG_LEVEL: "info",
      WORDLOOM_TRACING_ENABLED: "1",
      OTEL_SDK_DISABLED: "0",
      OTEL_TRACES_SAMPLER: "always_on",
      OTEL_SERVICE_NAME: undefined,
      OTEL_EXPORTER_OTLP_ENDPOINT: undefined,
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: given ?? (collector && `${collector.url}/v1/traces`),
      OUTBOX_POLL_INTERVAL_MS: "100",
    },
    tracesUrl,
    openCollector: (port) => ownTraces(join(folder, "traces-of-a-drill"), port),
  };
}

/** Turns whatever keeps the trace store at `url` from answering into a CommandError. */
export const storeAway =
  (url: string) =>
  (error: unknown): never => {
    throw new CommandError(
      "unreachable",
      `the trace store at ${shown(url)} does not answer as expected; start it or give --jaeger-url`,
      { cause: error },
    );
  };

import { join } from "node:path";
import { type DatabaseAddress, describeAddress } from "../db/address.ts";
import { type Database, type DbOptions, openDatabase } from "../db/client.ts";
import { databaseErrorCode, explainDatabaseError, isUnavailable, isUntrusted } from "../db/failure.ts";
import { checkSentinel } from "../db/guard.ts";
import { migrate, pendingMigrations } from "../db/migrate.ts";
import { PostgresStartError } from "../embedded/postgres/failure.ts";
import { keepPostgres } from "../embedded/postgres/keep.ts";
import { CommandError } from "../errors.ts";
import { poolOpened, statementSignals } from "../telemetry/database-signals.ts";
import type { Sinks } from "../telemetry/signals.ts";
import { embeddedAddress, type Settings } from "./settings.ts";

/** Finds the database, starting the embedded Postgres where none is given. What it opens is released with `resources`. */
async function reachPostgres(settings: Settings, resources: AsyncDisposableStack): Promise<DatabaseAddress> {
  if (settings.address !== undefined) return settings.address;
  try {
    const server = await keepPostgres({ dataDir: join(settings.dataDir, "postgres") });
    resources.defer(() => server.stop());
    const address = embeddedAddress(settings.environment, server.socketPath);
    await server.createDatabase(address.database);
    return address;
  } catch (error) {
    if (error instanceof PostgresStartError) throw new CommandError("failed", error.message, { cause: error });
    throw error;
  }
}

/** Wrong user or password, no such database, no right to use it, TLS that does not come about. */
function isTurnedAway(error: unknown): boolean {
  const code = databaseErrorCode(error) ?? "";
  return /^(28|3D000|42501|TLS_)/.test(code) || isUntrusted(code);
}

/** Runs what talks to the database, and turns an unreachable one into a message and exit code 4. */
export async function reporting<T>(address: DatabaseAddress, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof CommandError || !(isUnavailable(error) || isTurnedAway(error))) throw error;
    throw new CommandError("unreachable", explainDatabaseError(address, error), { cause: error });
  }
}

/** What the schema of the database must be like: complete, brought up to date, or whatever it is. */
type Schema = "required" | "applied" | "any";

export type Store = {
  readonly settings: Settings;
  readonly address: DatabaseAddress;
  readonly database: Database;
  /** The migrations that opening it applied. */
  readonly applied: readonly string[];
};

/** Where a pool is seen: in metrics, and with `tracing` in the spans of what it is used for. */
type Seen = Pick<Sinks, "metrics"> & Partial<Pick<Sinks, "tracing">>;

/** Another pool on a store's database, released with `resources`. */
export function openPool(
  { settings, address }: Pick<Store, "settings" | "address">,
  name: string,
  resources: AsyncDisposableStack,
  options: Partial<Pick<DbOptions, "max" | "statementTimeoutMs" | "commits">> & {
    readonly seen?: Seen | undefined;
  } = {},
): Database {
  const { config } = settings;
  const { metrics, tracing } = options.seen ?? {};
  const database = openDatabase(address, {
    applicationName: name,
    max: options.max ?? config.DATABASE_POOL_SIZE,
    statementTimeoutMs: options.statementTimeoutMs ?? config.DATABASE_STATEMENT_TIMEOUT_MS,
    poolTimeoutMs: config.DATABASE_POOL_TIMEOUT_MS,
    prepare: config.DATABASE_PREPARE,
    onStatement: tracing && statementSignals(tracing, address),
    commits: options.commits ?? "kept",
  });
  if (metrics) poolOpened(metrics, name, database.state);
  resources.defer(() => database.close());
  return database;
}

/**
 * Opens the database behind the guard: the one way in, for every command. Throws a CommandError when it cannot be reached (exit 4), belongs to another
 * environment or lacks a migration (exit 5).
 */
export async function openStore(
  settings: Settings,
  schema: Schema,
  name: string,
  resources: AsyncDisposableStack,
  seen?: Seen,
): Promise<Store> {
  const address = await reachPostgres(settings, resources);
  const database = openPool({ settings, address }, name, resources, { seen });
  return await reporting(address, async () => {
    const sentinel = await checkSentinel(database.db, settings.environment);
    let applied: string[] = [];
    if (schema === "applied") {
      const patient = openPool({ settings, address }, name, resources, {
        max: 1,
        statementTimeoutMs: migrationTimeoutMs,
      });
      applied = await migrate(patient.db, settings.environment);
    }
    if (schema === "required") {
      const pending = await pendingMigrations(database.db);
      const lacks = pending.length > 0 ? `${pending.length} of its migrations` : "the row of its environment_sentinel";
      if (sentinel === "missing" || pending.length > 0)
        throw new CommandError("refused", `${describeAddress(address)} lacks ${lacks}; run \`wordloom migrate\``);
    }
    return { settings, address, database, applied };
  });
}

/** A migration may rewrite a large table, and wait for another process that does. */
const migrationTimeoutMs = 3_600_000;

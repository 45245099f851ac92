import { join } from "node:path";
import { type Config, dataDir, readConfig } from "./config.ts";
import { type DatabaseAddress, describeAddress, parseDatabaseUrl } from "./db/address.ts";
import { type Database, databaseErrorCode, explainDatabaseError, isUnavailable, openDatabase } from "./db/client.ts";
import { checkAddress, checkSentinel, type Environment, environments, readEnvironment } from "./db/guard.ts";
import { migrate, pendingMigrations } from "./db/migrate.ts";
import { PostgresStartError } from "./embedded/postgres/failure.ts";
import { startPostgres } from "./embedded/postgres/start.ts";
import { CommandError } from "./errors.ts";
import { openFolder } from "./library/folder.ts";
import { type ImportOptions, type ImportReport, importMarkdown } from "./library/import.ts";
import { openWakeUps } from "./outbox/wake.ts";

/** The composition root: from the environment to what runs, each part released in the reverse order of its opening. */

type Env = Readonly<Record<string, string | undefined>>;

/** What the environment says, checked as far as it can be without a connection. */
export type Settings = {
  readonly config: Config;
  readonly environment: Environment;
  /** Alias of the search index. */
  readonly index: string;
  readonly dataDir: string;
  /** Undefined: the embedded Postgres. */
  readonly address: DatabaseAddress | undefined;
};

/** Throws a CommandError: bad configuration (exit 2), or an environment that does not fit its database (exit 5). */
export function readSettings(env: Env): Settings {
  const config = readConfig(env);
  const environment = readEnvironment(config.WORDLOOM_ENV);
  if (environment === undefined)
    throw new CommandError(
      "refused",
      `[ENV_GUARD] Refusing to start: WORDLOOM_ENV names an unknown environment; use one of ${environments.join(", ")}`,
    );
  const index =
    config.ELASTIC_INDEX ?? (environment === "test" ? "wordloom-test-search-index" : "wordloom-search-index");
  const address = config.DATABASE_URL === undefined ? undefined : parseDatabaseUrl(config.DATABASE_URL);
  const folder = dataDir(config, env);
  checkAddress(environment, address ?? embeddedAddress(environment, join(folder, "postgres")), index);
  return { config, environment, index, dataDir: folder, address };
}

const embeddedAddress = (environment: Environment, socketPath: string): DatabaseAddress => ({
  host: "localhost",
  port: 5432,
  socketPath,
  database: `wordloom_${environment}`,
  user: "postgres",
  password: undefined,
  tls: "off",
});

/** Finds the database, starting the embedded Postgres where none is given. What it opens is released with `resources`. */
async function reachPostgres(settings: Settings, resources: AsyncDisposableStack): Promise<DatabaseAddress> {
  if (settings.address !== undefined) return settings.address;
  try {
    const server = await startPostgres({ dataDir: join(settings.dataDir, "postgres") });
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
const isTurnedAway = (error: unknown) => /^(28|3D000|42501|TLS_|.*CERT)/.test(databaseErrorCode(error) ?? "");

/** Runs what talks to the database, and turns an unreachable one into a message and exit code 4. */
async function reporting<T>(address: DatabaseAddress, work: () => Promise<T>): Promise<T> {
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

/**
 * Opens the database behind the guard: the one way in, for every command. Throws a CommandError when it cannot be reached (exit 4), belongs to another
 * environment or lacks a migration (exit 5).
 */
async function openStore(
  settings: Settings,
  schema: Schema,
  name: string,
  resources: AsyncDisposableStack,
): Promise<Store> {
  const address = await reachPostgres(settings, resources);
  const open = (max: number, statementTimeoutMs: number) => {
    const database = openDatabase(address, {
      max,
      applicationName: name,
      statementTimeoutMs,
      prepare: settings.config.DATABASE_PREPARE,
    });
    resources.defer(() => database.close());
    return database;
  };
  const database = open(settings.config.DATABASE_POOL_SIZE, settings.config.DATABASE_STATEMENT_TIMEOUT_MS);
  return await reporting(address, async () => {
    const sentinel = await checkSentinel(database.db, settings.environment);
    let applied: string[] = [];
    if (schema === "applied") applied = await migrate(open(1, migrationTimeoutMs).db, settings.environment);
    else if (schema === "required") {
      const pending = await pendingMigrations(database.db);
      if (sentinel === "missing" || pending.length > 0)
        throw new CommandError(
          "refused",
          `${describeAddress(address)} lacks ${pending.length} of its migrations; run \`wordloom migrate\``,
        );
    }
    return { settings, address, database, applied };
  });
}

/** A migration may rewrite a large table, and wait for another process that does. */
const migrationTimeoutMs = 3_600_000;

/** Says what `wordloom migrate` did, or with `dryRun` what it would do. */
export async function migrateDatabase(
  env: Env,
  { dryRun }: { dryRun: boolean },
): Promise<{ applied: readonly string[]; pending: readonly string[]; where: string }> {
  await using resources = new AsyncDisposableStack();
  const store = await openStore(readSettings(env), dryRun ? "any" : "applied", "wordloom-migrate", resources);
  const pending = await reporting(store.address, () => pendingMigrations(store.database.db));
  return { applied: store.applied, pending, where: describeAddress(store.address) };
}

/** Reads a folder of Markdown into a library of the development user. */
export async function importFolder(
  env: Env,
  options: Omit<ImportOptions, "userId" | "committed"> & { folder: string },
): Promise<ImportReport> {
  await using resources = new AsyncDisposableStack();
  const settings = readSettings(env);
  const source = await openFolder(options.folder);
  const { database, address } = await openStore(settings, "required", "wordloom-import", resources);
  const wakeUps = openWakeUps(database);
  resources.defer(() => wakeUps.close());
  return await reporting(address, () =>
    importMarkdown(database.db, source, {
      ...options,
      userId: settings.config.DEV_USER_ID,
      committed: wakeUps.announce,
    }),
  );
}

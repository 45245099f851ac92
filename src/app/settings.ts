import { join } from "node:path";
import { type Config, dataDir, readConfig } from "../config.ts";
import { type DatabaseAddress, parseDatabaseUrl } from "../db/address.ts";
import { checkAddress, type Environment, environments, readEnvironment } from "../db/guard.ts";
import { CommandError } from "../errors.ts";

export type Env = Readonly<Record<string, string | undefined>>;

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

/** Of dev and test apart, as their databases are: one embedded engine holds them all. */
const defaultIndices: Record<Environment, string> = {
  dev: "wordloom-dev-search-index",
  test: "wordloom-test-search-index",
  sandbox: "wordloom-search-index",
  prod: "wordloom-search-index",
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
  const index = config.ELASTIC_INDEX ?? defaultIndices[environment];
  const address = config.DATABASE_URL === undefined ? undefined : parseDatabaseUrl(config.DATABASE_URL);
  const folder = dataDir(config, env);
  checkAddress(environment, address ?? embeddedAddress(environment, join(folder, "postgres")), index);
  return { config, environment, index, dataDir: folder, address };
}

/** Where the embedded Postgres holds the database of an environment. */
export const embeddedAddress = (environment: Environment, socketPath: string): DatabaseAddress => ({
  host: "localhost",
  port: 5432,
  socketPath,
  database: `wordloom_${environment}`,
  user: "postgres",
  password: undefined,
  tls: "off",
});

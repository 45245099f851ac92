import { sql } from "drizzle-orm";
import { CommandError } from "../errors.ts";
import type { DatabaseAddress } from "./address.ts";
import type { Db, Tx } from "./client.ts";

/** The environments that a database can belong to. */
export const environments = ["dev", "test", "sandbox", "prod"] as const;
export type Environment = (typeof environments)[number];

const aliases: Record<string, Environment> = { development: "dev", testing: "test", production: "prod" };

/** What WORDLOOM_ENV names, or undefined: an unknown environment is a refusal, never a guard that is off. */
export function readEnvironment(text: string): Environment | undefined {
  return environments.find((e) => e === text) ?? aliases[text];
}

const refuse = (message: string) => new CommandError("refused", `[ENV_GUARD] Refusing to start: ${message}`);

/** The environment that a database's name speaks of, or undefined for a neutral name. */
function environmentOfName(database: string): Environment | undefined {
  if (/_test(_[a-z0-9]+)?$/.test(database)) return "test";
  if (database.endsWith("_dev")) return "dev";
  return undefined;
}

/**
 * Checks what can be checked without a connection: dev and test live on the guarded address of the operator documents
 * (localhost:5435, wordloom_dev or wordloom_test; a unix socket is local by nature), and nothing else uses their names or the test index.
 * Throws a CommandError (exit 5).
 */
export function checkAddress(environment: Environment, address: DatabaseAddress, index: string): void {
  const named = environmentOfName(address.database);
  if (environment === "dev" || environment === "test") {
    if (named !== environment || !address.database.startsWith("wordloom_"))
      throw refuse(
        `WORDLOOM_ENV=${environment} requires the database wordloom_${environment}; DATABASE_URL names another`,
      );
    const local = ["localhost", "127.0.0.1", "::1"].includes(address.host) && address.port === 5435;
    if (address.socketPath === undefined && !local)
      throw refuse(
        `WORDLOOM_ENV=${environment} requires Postgres at localhost:5435 or on a unix socket; DATABASE_URL names another host or port`,
      );
  } else if (named !== undefined) {
    throw refuse(
      `DATABASE_URL names a ${named} database, but WORDLOOM_ENV is ${environment}; set WORDLOOM_ENV=${named} or another DATABASE_URL`,
    );
  }
  const testIndex = index.startsWith("wordloom-test-");
  if (testIndex !== (environment === "test"))
    throw refuse(
      testIndex
        ? `ELASTIC_INDEX is a test index, but WORDLOOM_ENV is ${environment}; set another ELASTIC_INDEX`
        : "WORDLOOM_ENV=test requires an ELASTIC_INDEX that starts with wordloom-test-",
    );
}

/** Compares the database's own sentinel with the environment. A database without one has not been migrated. Throws a CommandError (exit 5). */
export async function checkSentinel(db: Db | Tx, environment: Environment): Promise<"same" | "missing"> {
  const [{ there } = { there: false }] = await db.execute<{ there: boolean }>(
    sql`select to_regclass('environment_sentinel') is not null as there`,
  );
  if (!there) return "missing";
  const [row] = await db.execute<{ project: string; env: string }>(
    sql`select project, env from environment_sentinel where id = 1`,
  );
  if (!row) return "missing";
  if (row.project !== "wordloom")
    throw refuse(`the database belongs to the project "${row.project}"; correct DATABASE_URL`);
  if (row.env !== environment)
    throw refuse(`the database's sentinel says ${row.env}, but WORDLOOM_ENV is ${environment}; correct one of them`);
  return "same";
}

import { createHash } from "node:crypto";
import { sql } from "drizzle-orm";
import { CommandError } from "../errors.ts";
import type { Db, Tx } from "./client.ts";
import { checkSentinel, type Environment } from "./guard.ts";
import { loadMigrations } from "./migrations.macro.ts" with { type: "macro" };

/** The migrations of this build, in order. */
export const migrations: readonly { name: string; sql: string; hash: string }[] = loadMigrations().map((m) => ({
  ...m,
  hash: createHash("sha256").update(m.sql).digest("hex"),
}));

/** Any constant will do, as long as nothing else uses it in this database. */
const migrationLock = 7_270_301_144n;

type Applied = { name: string; hash: string };

async function applied(db: Db | Tx): Promise<Applied[]> {
  const [{ there } = { there: false }] = await db.execute<{ there: boolean }>(
    sql`select to_regclass('wordloom_migrations') is not null as there`,
  );
  return there ? await db.execute<Applied>(sql`select name, hash from wordloom_migrations order by name`) : [];
}

/** Throws when the database was made by a newer build, or when a migration was changed after it was applied. */
function pendingAfter(done: readonly Applied[]): typeof migrations {
  for (const [i, row] of done.entries()) {
    const known = migrations[i];
    if (known?.name !== row.name)
      throw new CommandError(
        "refused",
        `the database has migration "${row.name}", which this build does not know; use the build that applied it`,
      );
    if (known.hash !== row.hash)
      throw new CommandError(
        "refused",
        `migration "${row.name}" was changed after it was applied; restore the file in drizzle/`,
      );
  }
  return migrations.slice(done.length);
}

/**
 * Applies what is missing, all in one transaction under an advisory lock: of many processes that start at once one migrates and the rest wait.
 * Returns the names that were applied. `environment` is written to the sentinel when the database is new.
 * Throws a CommandError, and applies nothing, where the sentinel names another one.
 */
export async function migrate(db: Db, environment: Environment): Promise<string[]> {
  return await db.transaction(async (tx) => {
    await tx.execute(sql`select pg_advisory_xact_lock(${migrationLock})`);
    const pending = pendingAfter(await applied(tx));
    if (pending.length > 0)
      await tx.execute(
        sql`create table if not exists wordloom_migrations (name text primary key, hash text not null, applied_at timestamptz not null default now())`,
      );
    for (const migration of pending) {
      await tx.execute(sql.raw(migration.sql));
      await tx.execute(sql`insert into wordloom_migrations (name, hash) values (${migration.name}, ${migration.hash})`);
    }
    await tx.execute(
      sql`insert into environment_sentinel (id, project, env) values (1, 'wordloom', ${environment}) on conflict (id) do nothing`,
    );
    // When two environments race for a new database, one has written it by now.
    await checkSentinel(tx, environment);
    return pending.map((m) => m.name);
  });
}

/** The names of the migrations that the database lacks. */
export async function pendingMigrations(db: Db): Promise<string[]> {
  return pendingAfter(await applied(db)).map((m) => m.name);
}

import { describeAddress } from "../db/address.ts";
import { pendingMigrations } from "../db/migrate.ts";
import { type Env, readSettings } from "./settings.ts";
import { openStore, reporting } from "./store.ts";

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

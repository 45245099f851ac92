import { expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { readSettings } from "../../src/app/settings.ts";
import { openStore } from "../../src/app/store.ts";
import { welcome } from "../../src/app/welcome.ts";
import { openWakeUps } from "../../src/outbox/wake.ts";
import { testDatabase } from "../support/postgres.ts";

const testbed = await testDatabase();

test("the documentation is imported once, an import that was cut short goes on, and what was deleted stays deleted", async () => {
  await using resources = new AsyncDisposableStack();
  const settings = readSettings({ WORDLOOM_ENV: "test", DATABASE_URL: testbed.url });
  const store = await openStore(settings, "required", "test", resources);
  const wakeUps = openWakeUps(store.database);
  resources.defer(() => wakeUps.close());
  const never = new AbortController().signal;

  expect(await welcome(store, wakeUps, AbortSignal.abort())).toBe(false);
  expect(await welcome(store, wakeUps, never)).toBe(true);
  expect(await welcome(store, wakeUps, never)).toBe(false);
  await store.database.db.execute(sql`update books set soft_deleted_at = now() where source_path = 'architecture.md'`);
  await store.database.db.execute(sql`update libraries set soft_deleted_at = now()`);
  expect(await welcome(store, wakeUps, never)).toBe(false);
});

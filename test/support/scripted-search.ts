import { afterAll, beforeEach } from "bun:test";
import type { DbOptions } from "../../src/db/client.ts";
import { emptyQueue, recordSignals } from "./batch.ts";
import { testDatabase } from "./postgres.ts";
import { connect, startScriptedEngine } from "./scripted-engine.ts";

/**
 * What the search projection of one test file works between: the file's own database, and the real client of a scripted engine, with signals that are remembered.
 * Before each test the queue is empty, the engine answers as it should and nothing is remembered. All is closed after the last.
 */
export async function openScriptedSearch(options?: Partial<DbOptions>) {
  const database = (await testDatabase()).open(options);
  const engine = await startScriptedEngine();
  const client = await connect(engine.url);
  const recorded = recordSignals();
  afterAll(async () => {
    await client.close();
    await engine.close();
    await database.close();
  });
  beforeEach(async () => {
    await emptyQueue(database.db);
    engine.reset();
    recorded.counted();
    recorded.forget();
  });
  return { database, db: database.db, engine, client, recorded };
}

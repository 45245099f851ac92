import { afterAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { readConfig } from "../../src/config.ts";
import { openWakeUps } from "../../src/outbox/wake.ts";
import { startProjection } from "../../src/projection/start.ts";
import { createTag } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";
import { connect, startScriptedEngine } from "../support/scripted-engine.ts";
import { until } from "../support/until.ts";
import { quietSinks } from "../support/worker.ts";

const testdb = await testDatabase();
const direct = testdb.open();
const engine = await startScriptedEngine();
const client = await connect(engine.url);
afterAll(async () => {
  await client.close();
  await engine.close();
  await direct.close();
});

test("a worker for which no connection is free in time counts db_unavailable, is not ready, lives on, and goes on when there is one", async () => {
  const pool = testdb.open({ max: 1, poolTimeoutMs: 50 });
  const release = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  const holding = pool.db.transaction(async () => {
    held.resolve();
    await release.promise;
  });
  await held.promise;
  await createTag(direct.db, { name: "waits" });
  const sinks = quietSinks();
  const stop = new AbortController();
  const wakeUps = openWakeUps(direct);
  const projection = startProjection(
    "chronicle",
    {
      config: readConfig({ OUTBOX_POLL_INTERVAL_MS: "20" }),
      db: pool.db,
      healthDb: direct.db,
      wakeUps,
      client,
      index: "none",
      workerId: "w1",
    },
    sinks,
    stop.signal,
  );
  const refused =
    /outbox_db_errors_total\{projection="chronicle_events_to_entries",step="claim",reason="db_unavailable"\} [1-9]/;
  await until("it says so", async () => refused.test((await sinks.metrics.render(null)).body));
  await until("the readiness says so", () => projection.health.ready().reason === "db_unhealthy");
  expect(projection.health.live().ok).toBe(true);
  release.resolve();
  await holding;
  await until("the event is done", async () => {
    const [row] = await direct.db.execute<{ n: number }>(
      sql`select count(*)::int as n from chronicle_outbox_events_live`,
    );
    return row?.n === 0;
  });
  await until("the readiness says so", () => projection.health.ready().ok);
  stop.abort();
  await projection.done;
  await wakeUps.close();
  await pool.close();
});

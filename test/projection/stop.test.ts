import { afterAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { emptyQueue, seed } from "../support/batch.ts";
import { testDatabase } from "../support/postgres.ts";
import { startUp, startWork } from "../support/processes.ts";
import { startProxy } from "../support/proxy.ts";
import { startScriptedEngine } from "../support/scripted-engine.ts";
import { until } from "../support/until.ts";

/** What real workers do when they are told to stop. */

setDefaultTimeout(60_000);
const testdb = await testDatabase();
const database = testdb.open();
const engine = await startScriptedEngine();
afterAll(async () => {
  await engine.close();
  await database.close();
});
beforeEach(async () => {
  await emptyQueue(database.db);
  engine.reset();
});

/** Longer than a test may take: what waits for it does not end. */
const neverMs = "300000";

const report = async (url: string) => {
  const response = await fetch(url);
  return { status: response.status, body: await response.json() };
};

test("a worker that is told to stop is not ready any more but alive while it drains, and leaves at once when it is told again", async () => {
  await seed(database.db, [{ op: "upsert", version: 7n, row: "live" }]);
  engine.whole = () => ({ kind: "hang" });
  const worker = await startWork({
    DATABASE_URL: testdb.url,
    ELASTIC_URL: engine.url,
    ELASTIC_REQUEST_TIMEOUT_MS: neverMs,
    OUTBOX_SHUTDOWN_GRACE_SECONDS: "600",
    OUTBOX_LEASE_SECONDS: "600",
  });
  await until("a request is on its way", () => engine.requests.length === 1);
  expect(worker.lines.filter((line) => line.includes('"event":"worker.listening"'))).toEqual([
    expect.stringContaining(`"url":"${worker.url}"`),
  ]);
  await until("it is ready", async () => (await report(`${worker.url}/readyz`)).status === 200);
  worker.kill("SIGTERM");
  const draining = await until("it is not ready", async () => {
    const answer = await report(`${worker.url}/readyz`);
    return answer.status === 503 && answer;
  });
  expect(draining.body).toMatchObject({ ok: false, reason: "draining" });
  expect(await report(`${worker.url}/livez`)).toMatchObject({ status: 200, body: { ok: true } });
  worker.kill("SIGINT");
  expect(await worker.exited).toBe(130);
});

test.each([
  ["a worker", startWork],
  ["all in one process", startUp],
])(
  "%s exits with 0 when the grace is over, though neither Postgres nor the engine answers any more",
  async (_, begin) => {
    await seed(database.db, [{ op: "upsert", version: 7n, row: "live" }]);
    engine.whole = () => ({ kind: "hang" });
    const folder = await mkdtemp(join(tmpdir(), "wordloom-stop-"));
    const proxy = await startProxy(testdb.address, folder);
    const { user, database: name } = testdb.address;
    const worker = await begin({
      DATABASE_URL: `postgresql:///${name}?host=${encodeURIComponent(folder)}&user=${user}`,
      DATABASE_STATEMENT_TIMEOUT_MS: neverMs,
      ELASTIC_URL: engine.url,
      ELASTIC_REQUEST_TIMEOUT_MS: neverMs,
      OUTBOX_SHUTDOWN_GRACE_SECONDS: "1",
      OUTBOX_LEASE_SECONDS: "600",
      OUTBOX_POLL_INTERVAL_MS: "10",
    });
    await until("a request is on its way", () => engine.requests.length === 1);
    proxy.swallow();
    await until("the silence is noticed", async () => (await report(`${worker.url}/readyz`)).status === 503);
    worker.kill("SIGTERM");
    expect(await worker.exited).toBe(0);
    const states = worker.lines.filter((line) => line.includes('"worker.state"')).map((line) => JSON.parse(line));
    expect(states.filter(({ state }) => state === "STOPPED")).toHaveLength(2);
    expect(worker.lines.filter((line) => line.includes("Shutdown grace exceeded; exiting"))).toHaveLength(1);
    await proxy.close();
    await rm(folder, { recursive: true });
  },
);

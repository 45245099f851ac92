import { expect, test } from "bun:test";
import { openSearch, readRows, recordSignals, seed, upserts } from "../support/batch.ts";
import { intercept } from "../support/intercept.ts";
import { itemError } from "../support/scripted-engine.ts";
import { openScriptedSearch } from "../support/scripted-search.ts";
import { until } from "../support/until.ts";
import { startWorker } from "../support/worker.ts";

/** A worker that looks for work of which nobody told it once in an hour. */
const pollMs = 3_600_000;

const { database, db, engine, client } = await openScriptedSearch({ max: 8 });

const allDone = async () => (await readRows(db)).every(({ status }) => status === "done");

test("an idle worker claims once in its poll interval, and its loop turns all the same", async () => {
  let claims = 0;
  const counted = intercept(db, (statement) => {
    if (JSON.stringify(statement).includes("leased as (")) claims += 1;
    return db.execute(statement);
  });
  const worker = startWorker({ ...database, db: counted }, openSearch(db, client), { pollMs });
  const silence = () => worker.health.live().last_loop_ago_seconds;
  for (let turn = 0; turn < 3; turn += 1) {
    await until("a while without a turn", () => silence() > 0.5);
    await until("the loop turns", () => silence() < 0.5);
  }
  await worker.end();
  expect(claims).toBe(1);
});

test("retries are on time however long the poll interval is, though each has a delay of its own", async () => {
  await seed(db, upserts(20));
  const refused = new Set<string>();
  engine.item = ({ id }) => {
    if (refused.size === 10 || refused.has(id)) return undefined;
    refused.add(id);
    return itemError(429, "es_rejected_execution_exception", "queue");
  };
  const projection = openSearch(db, client, { backoff: { baseMs: 1500, maxMs: 1500 } });
  const worker = startWorker(database, projection, { pollMs, batchSize: 100 });
  await until("all are done", allDone, 15_000);
  await worker.end();
  expect(refused.size).toBe(10);
});

test("an outage ends as soon as with any other poll interval", async () => {
  const recorded = recordSignals();
  await seed(db, upserts(20));
  await engine.refuse();
  const worker = startWorker(database, openSearch(db, client), { pollMs, batchSize: 10 }, recorded);
  await until("the breaker opens", () => recorded.gauge("outbox_breaker_state") === 2);
  await engine.listen();
  await until("all are done", allDone, 15_000);
  await worker.end();
});

test("a claim that failed is made again however long the poll interval is", async () => {
  await seed(db, upserts(5));
  let failed = false;
  const failing = intercept(db, (statement) => {
    if (failed) return db.execute(statement);
    failed = true;
    return Promise.reject(Object.assign(new Error("terminating connection"), { code: "57P01" }));
  });
  const worker = startWorker({ ...database, db: failing }, openSearch(db, client), { pollMs });
  await until("all are done", allDone, 15_000);
  await worker.end();
});

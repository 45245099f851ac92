import { afterAll, beforeEach, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { readConfig } from "../../src/config.ts";
import { queues } from "../../src/outbox/queue.ts";
import { openWakeUps } from "../../src/outbox/wake.ts";
import { type ChronicleProjectionOptions, chronicleProjection } from "../../src/projection/chronicle/project.ts";
import { startProjection } from "../../src/projection/start.ts";
import { recordSignals, runBatch } from "../support/batch.ts";
import { intercept } from "../support/intercept.ts";
import { testDatabase } from "../support/postgres.ts";
import { enqueue, newEvents, rowsOf } from "../support/queue.ts";
import { connect } from "../support/scripted-engine.ts";
import { until } from "../support/until.ts";
import { quietSinks } from "../support/worker.ts";

/** What becomes of chronicle events that are not written. */

const queue = queues.chronicle;
const database = (await testDatabase()).open({ max: 6 });
const { db } = database;
const recorded = recordSignals();
afterAll(() => database.close());

// What the database cannot take, whoever writes it.
await db.execute(sql`
  create function refuse_poison() returns trigger language plpgsql as $$ begin raise exception 'poison'; end $$`);
await db.execute(sql`
  create trigger refuse_poison before insert on chronicle_entries for each row when (new.event_type = 'poison') execute function refuse_poison()`);

beforeEach(async () => {
  await db.execute(sql`truncate chronicle_events, chronicle_outbox_events, chronicle_entries, outbox_leases`);
  recorded.counted();
});

/** Writes a chronicle event of each type, and their events in the queue. */
async function seed(types: readonly string[]): Promise<string[]> {
  const ids = types.map(() => crypto.randomUUID());
  for (const [i, type] of types.entries())
    await db.execute(
      sql`insert into chronicle_events (id, event_type, entity_type, entity_id) values (${ids[i]}::uuid, ${type}, 'tag', gen_random_uuid())`,
    );
  await enqueue(
    db,
    queue,
    ids.flatMap((entityId) => newEvents(1, { entityType: "chronicle_event", entityId })),
  );
  return ids;
}

const rows = async () => [...(await rowsOf(db, queue)).values()];
const entries = async () =>
  (await db.execute<{ id: string }>(sql`select id::text from chronicle_entries`)).map(({ id }) => id).toSorted();
const makeDue = () =>
  db.execute(sql`update chronicle_outbox_events_live set next_retry_at = now() where status = 'pending'`);

const open = (over: Partial<ChronicleProjectionOptions> = {}, to = db) =>
  chronicleProjection(to, {
    projectionVersion: 1,
    maxAttempts: 3,
    backoff: { baseMs: 500, maxMs: 30_000 },
    fault: null,
    ...over,
  });

test("events that the database cannot take fail alone, after as many attempts as are allowed, and all their neighbours are written", async () => {
  const types = Array.from({ length: 20 }, (_, i) => (i === 3 || i === 17 ? "poison" : "tag_created"));
  const ids = await seed(types);
  for (const counted of [1, 2, 3]) {
    await runBatch(db, open(), recorded);
    for (const [i, row] of (await rows()).entries())
      expect(row).toMatchObject(
        types[i] === "poison"
          ? {
              status: counted < 3 ? "pending" : "failed",
              error_reason: "unknown_exception",
              attempts: counted,
              counted_attempts: counted,
            }
          : { status: "done", result: "applied", attempts: 1 },
      );
    await makeDue();
  }
  expect(await entries()).toEqual(ids.filter((_, i) => types[i] !== "poison").toSorted());
  expect(recorded.counted()).toMatchObject({
    "outbox_processed_total{op=upsert}": 18,
    "outbox_retry_scheduled_total{op=upsert,reason=unknown_exception}": 4,
    "outbox_terminal_failed_total{op=upsert,reason=unknown_exception}": 2,
  });
});

test("an op that the chronicle does not know and an event that does not exist fail at once, and their neighbours are written", async () => {
  const [id] = await seed(["tag_created"]);
  await enqueue(db, queue, newEvents(1, { entityType: "chronicle_event", op: "delete" }));
  await enqueue(db, queue, newEvents(1, { entityType: "chronicle_event" }));
  await runBatch(db, open(), recorded);
  const [written, unknown, missing] = await rows();
  expect(written?.status).toBe("done");
  for (const row of [unknown, missing])
    expect(row).toMatchObject({ status: "failed", error_reason: "deterministic_exception", counted_attempts: 1 });
  expect(unknown?.error).toBe('the chronicle knows no op "delete"');
  expect(missing?.error).toBe(`the chronicle event ${missing?.entity_id} does not exist`);
  expect(await entries()).toEqual([id ?? ""]);
});

test.each([
  [30_000, 10_000],
  [4000, 4000],
])(
  "with a longest delay of %i ms an event of the chronicle that fails on and on waits %i ms at most, and at least half of it",
  async (maxMs, longestMs) => {
    await seed(["poison"]);
    await db.execute(sql`update chronicle_outbox_events_live set attempts = 20`);
    await runBatch(db, open({ backoff: { baseMs: 500, maxMs } }), recorded);
    const [row] = await rows();
    expect(row?.status).toBe("pending");
    const [waits] = await db.execute<{ ms: number }>(
      sql`select extract(epoch from next_retry_at - updated_at)::float8 * 1000 as ms from chronicle_outbox_events_live`,
    );
    expect(waits?.ms).toBeGreaterThanOrEqual(longestMs / 2);
    expect(waits?.ms).toBeLessThanOrEqual(longestMs);
  },
);

test("where the database can take no event at all, none is to blame: all wait, and none fails for it", async () => {
  await seed(Array.from({ length: 20 }, () => "poison"));
  await runBatch(db, open({ maxAttempts: 1 }), recorded);
  expect((await rows()).map(({ status, counted_attempts, error }) => [status, counted_attempts, error])).toEqual(
    Array.from({ length: 20 }, () => ["pending", 0, "SQLSTATE P0001 (exec_stmt_raise)"]),
  );
});

test("a table that is missing is no fault of an event: all wait, and none fails for it", async () => {
  await seed(["tag_created", "tag_created"]);
  const misfit = intercept(db, (statement) =>
    db.execute(
      JSON.stringify(statement).includes("insert into chronicle_entries") ? sql`select * from not_there` : statement,
    ),
  );
  await runBatch(db, open({ maxAttempts: 1 }, misfit), recorded);
  for (const row of await rows())
    expect(row).toMatchObject({ status: "pending", error_reason: "unknown_exception", counted_attempts: 0 });
});

test("a database that takes no writes costs no event an attempt that counts", async () => {
  await seed(["tag_created", "tag_created"]);
  const standby = intercept(db, (statement) =>
    db.transaction(async (tx) => {
      await tx.execute(sql`set transaction read only`);
      return await tx.execute(statement);
    }),
  );
  await runBatch(db, open({}, standby), recorded);
  for (const row of await rows())
    expect(row).toMatchObject({ status: "pending", error_reason: "db_unavailable", counted_attempts: 0 });
});

test.each([
  ["transient", { status: "failed", error_reason: "unknown_exception", attempts: 2, counted_attempts: 2 }],
  ["deterministic", { status: "failed", error_reason: "deterministic_exception", attempts: 1, counted_attempts: 1 }],
] as const)(
  "OUTBOX_FAULT_INJECT_KIND=%s fails the event of OUTBOX_FAULT_INJECT_ENTITY_ID in that way, and no other",
  async (kind, expected) => {
    const ids = await seed(["tag_created", "tag_created", "tag_created"]);
    const config = readConfig({
      OUTBOX_FAULT_INJECT_KIND: kind,
      OUTBOX_FAULT_INJECT_ENTITY_ID: ids[1] ?? "",
      OUTBOX_MAX_ATTEMPTS: "2",
      OUTBOX_POLL_INTERVAL_MS: "20",
      OUTBOX_BASE_BACKOFF_SECONDS: "0.01",
    });
    const client = await connect("http://127.0.0.1:1");
    const wakeUps = openWakeUps(database);
    const stop = new AbortController();
    const projection = startProjection(
      "chronicle",
      { config, db, healthDb: db, wakeUps, client, index: "none", workerId: "w1" },
      quietSinks(),
      stop.signal,
    );
    try {
      const settled = async () => (await rows()).every((r) => r.status === "done" || r.status === "failed");
      await until("every event has come to its end", settled);
    } finally {
      stop.abort();
      await projection.done;
      await wakeUps.close();
      await client.close();
    }
    const [one, broken, two] = await rows();
    expect([one?.status, two?.status]).toEqual(["done", "done"]);
    expect(broken).toMatchObject({ ...expected, error: `Injected ${kind} failure (fault injection)` });
    expect(await entries()).toEqual([ids[0] ?? "", ids[2] ?? ""].toSorted());
  },
);

import { expect, test } from "bun:test";
import { type SQL, sql } from "drizzle-orm";
import { openClaim } from "../../src/outbox/claim.ts";
import { queues } from "../../src/outbox/queue.ts";
import { processBatch } from "../../src/projection/batch.ts";
import { createPace } from "../../src/projection/pace.ts";
import { makeDue, openSearch, readRows, runBatch, seed, upserts } from "../support/batch.ts";
import { intercept } from "../support/intercept.ts";
import { openScriptedSearch } from "../support/scripted-search.ts";

/** Search events that never become a document: rows that somebody has inserted by hand, documents that the database cannot read. */

const { db, engine, client, recorded } = await openScriptedSearch();

/** A row of the queue, and what search_index holds of its entity. */
async function insertByHand(entityType: string, op: string): Promise<void> {
  await db.execute(sql`
    with entity as (
      insert into search_index (entity_type, entity_id, title, text, snippet, event_version) values (${entityType}, gen_random_uuid(), 'title', 'words', '', 1) returning *
    )
    insert into search_outbox_events (entity_type, entity_id, op, event_version) select entity_type, entity_id, ${op}, event_version from entity`);
}

const statuses = async () => (await readRows(db)).map((r) => r.status);

const canary = "canary-90bd";

/** `db`, but Postgres fails whatever names one of these entities, and quotes what it was given. */
function failingFor(entityIds: readonly string[], count: (statement: SQL) => void = () => undefined) {
  return intercept(db, (statement) => {
    count(statement);
    const text = JSON.stringify(statement, (_, v: unknown) => (typeof v === "bigint" ? v.toString() : v));
    return db.execute(entityIds.some((id) => text.includes(id)) ? sql`select ${canary}::uuid` : statement);
  });
}

test.each(["a\u001fb", "a\u001eb", "a{b", "a}b", 'a"b', "a\\b", "a,b", "NULL", "", " "])(
  "no text in a row breaks the look-up of its batch: entity_type %p",
  async (entityType) => {
    await seed(db, upserts(2));
    await insertByHand(entityType, "upsert");
    await runBatch(db, openSearch(db, client), recorded);
    expect(await statuses()).toEqual(["done", "done", "done"]);
    expect(engine.requests[0]?.items.map((i) => [i.op, i.id.split(":")[0]])).toEqual([
      ["index", "tag"],
      ["index", "tag"],
      ["index", entityType],
    ]);
  },
);

test("an op that the search index does not know fails its event at once, and speaks for no other event of the entity", async () => {
  const [one] = await seed(db, upserts(2));
  await db.execute(
    sql`insert into search_outbox_events (entity_type, entity_id, op, event_version) values ('tag', ${one?.entityId}::uuid, 'merge', 9)`,
  );
  await runBatch(db, openSearch(db, client), recorded);
  const [, , unknown] = await readRows(db);
  expect(await statuses()).toEqual(["done", "done", "failed"]);
  expect(unknown).toMatchObject({ reason: "deterministic_exception", counted: 1, attempts: 1 });
  expect(unknown?.error).toBe('the search index knows no op "merge"');
  expect(engine.requests.map((r) => r.items.map((i) => i.version))).toEqual([[7n, 7n]]);
  expect(recorded.counted()["outbox_terminal_failed_total{op=merge,reason=deterministic_exception}"]).toBe(1);
});

test("a document that the database cannot read is found among a hundred by halves, and the others land in one request", async () => {
  const seeded = await seed(db, upserts(100));
  const poison = seeded[37]?.entityId ?? "";
  let lookups = 0;
  const reading = failingFor([poison], () => {
    lookups += 1;
  });
  await runBatch(db, openSearch(reading, client), recorded);
  const rows = await readRows(db);
  expect(rows.flatMap((r, i) => (r.status === "done" ? [] : [[i, r.status, r.reason, r.counted]]))).toEqual([
    [37, "pending", "unknown_exception", 1],
  ]);
  expect(lookups).toBeLessThanOrEqual(2 * Math.ceil(Math.log2(100)) + 1);
  expect(engine.requests.map((r) => r.items.length)).toEqual([99]);
});

test("a column that is missing is no fault of a document: all wait, and none fails for it", async () => {
  await seed(db, upserts(3));
  const misfit = intercept(db, (statement) =>
    db.execute(
      JSON.stringify(statement).includes("search_index s") ? sql`select not_there from search_index` : statement,
    ),
  );
  await runBatch(db, openSearch(misfit, client, { limits: { maxAttempts: 1, terminalOnTransient: false } }), recorded);
  expect((await readRows(db)).map((r) => [r.status, r.reason, r.counted])).toEqual(
    Array.from({ length: 3 }, () => ["pending", "unknown_exception", 0]),
  );
});

test("where the database can read no document at all, none is to blame, and few are tried", async () => {
  const seeded = await seed(db, upserts(100));
  let reads = 0;
  const reading = failingFor(
    seeded.map(({ entityId }) => entityId),
    () => {
      reads += 1;
    },
  );
  await runBatch(db, openSearch(reading, client, { limits: { maxAttempts: 1, terminalOnTransient: false } }), recorded);
  const rows = await readRows(db);
  expect(rows.map(({ status, counted }) => [status, counted])).toEqual(rows.map(() => ["pending", 0]));
  expect(reads).toBeLessThan(25);
});

test("where it can read every third, the others are to blame", async () => {
  const seeded = await seed(db, upserts(100));
  const poison = seeded.filter((_, i) => i % 3 !== 0).map(({ entityId }) => entityId);
  const limits = { maxAttempts: 1, terminalOnTransient: false };
  await runBatch(db, openSearch(failingFor(poison), client, { limits }), recorded);
  expect(await statuses()).toEqual(seeded.map((_, i) => (i % 3 === 0 ? "done" : "failed")));
});

test("documents that the database can never read fail at OUTBOX_MAX_ATTEMPTS, and ask nothing of the engine when they are alone", async () => {
  const [one, , two] = await seed(db, upserts(3));
  const reading = failingFor([one?.entityId ?? "", two?.entityId ?? ""]);
  const search = openSearch(reading, client, { limits: { maxAttempts: 3, terminalOnTransient: false } });
  for (const counted of [1, 2, 3]) {
    await runBatch(db, search, recorded);
    const rows = await readRows(db);
    for (const row of [rows[0], rows[2]])
      expect(row).toMatchObject({
        status: counted < 3 ? "pending" : "failed",
        reason: "unknown_exception",
        counted,
        error: "SQLSTATE 22P02 (string_to_uuid)",
      });
    await makeDue(db);
  }
  const blamed = recorded.told('"outbox.event_blamed"');
  const ids = [one?.entityId ?? "", two?.entityId ?? ""].toSorted();
  expect(blamed.map((line) => String(line["entity_id"])).toSorted()).toEqual(ids.flatMap((id) => [id, id, id]));
  expect(JSON.stringify(blamed)).toContain("SQLSTATE 22P02");
  expect(JSON.stringify(recorded.told(""))).not.toContain(canary);
  expect(await statuses()).toEqual(["failed", "done", "failed"]);
  expect(engine.requests.length).toBe(1);
});

test.each([
  ["40P01", { status: "pending", reason: "db_contention", attempts: 0, counted: 0 }],
  ["CONNECTION_CLOSED", { status: "pending", reason: null, attempts: 0, counted: 0 }],
])("a database that is busy or away while documents are read is no event's fault (%s)", async (code, expected) => {
  await seed(db, upserts(4));
  let lookups = 0;
  const failing = intercept(db, () => {
    lookups += 1;
    return Promise.reject(Object.assign(new Error(code), { code }));
  });
  await runBatch(db, openSearch(failing, client), recorded);
  expect(await readRows(db)).toMatchObject(Array(4).fill(expected));
  expect(lookups).toBe(1);
});

test("a batch of which nothing can be sent waits for no turn, and tells nothing of the engine", async () => {
  await insertByHand("tag", "merge");
  const lease = await openClaim(db, queues.search, { owner: "w1", leaseMs: 60_000 })(10);
  if (lease === null) throw new Error("nothing was claimed");
  const batch = recorded.signals.claimed(lease, { startedAt: Date.now(), tookMs: 1, limit: 500, mode: "atomic" });
  const never = () => Promise.reject(new Error("the engine was asked"));
  await processBatch(
    {
      db,
      projection: openSearch(db, client),
      pace: { ...createPace(2, recorded.signals, () => undefined), send: never },
      signals: recorded.signals,
      leaseMs: 60_000,
      maxProcessingMs: 300_000,
      leave: new AbortController().signal,
    },
    lease,
    never,
    batch,
  );
  expect(await statuses()).toEqual(["failed"]);
});

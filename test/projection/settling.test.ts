import { expect, test } from "bun:test";
import { setInterval } from "node:timers/promises";
import { type SQL, sql } from "drizzle-orm";
import { PgDialect } from "drizzle-orm/pg-core";
import type { Db } from "../../src/db/client.ts";
import type { WorkerSignals } from "../../src/telemetry/worker-signals.ts";
import { batchResult, openSearch, readRows, runBatch, seed, upserts } from "../support/batch.ts";
import { intercept } from "../support/intercept.ts";
import { itemError } from "../support/scripted-engine.ts";
import { openScriptedSearch } from "../support/scripted-search.ts";

/** What is told of a batch whose settle does not go as it should. */

const { db, engine, client, recorded } = await openScriptedSearch();

/** A failure as the driver reports it: its code is all that is looked at. */
const failure = (code: string) => Object.assign(new Error(code), { code });

/** `db`, but what happens to the first settle of a batch is up to `first`. Its statements: the claim, then the settles. */
function settling(first: (settle: SQL) => Promise<unknown>): Db {
  let statements = 0;
  return intercept(db, (statement) => {
    statements += 1;
    return statements === 2 ? first(statement) : db.execute(statement);
  });
}

const answerLost = (code: string) => async (settle: SQL) => {
  await db.execute(settle);
  throw failure(code);
};

test.each(["CONNECTION_CLOSED", "57P01", "ANSWER_TIMEOUT"])(
  "a batch whose settle committed but was never answered (%s) is told as settled, not as somebody else's",
  async (code) => {
    await seed(db, upserts(5));
    engine.item = ({ id }) =>
      id === engine.requests[0]?.items[0]?.id ? itemError(429, "too_many", "queue") : undefined;
    await runBatch(settling(answerLost(code)), openSearch(db, client), recorded);
    expect(recorded.counted()).toMatchObject({
      "outbox_db_errors_total{step=settle,reason=db_unavailable}": 1,
      "outbox_processed_total{op=upsert}": 4,
      "outbox_retry_scheduled_total{op=upsert,reason=es_429}": 1,
    });
    const [line] = recorded.told('"projection.process_batch"');
    expect(line).toMatchObject({ result: "partial", ok_count: 4, retry_count: 1, owner_mismatch: 0 });
    expect(recorded.gauge("outbox_last_success_timestamp_seconds")).toBeGreaterThan(0);
  },
);

const inReadOnly = (statement: SQL) =>
  db.transaction(async (tx) => {
    await tx.execute(sql`set transaction read only`);
    return await tx.execute(statement);
  });

test.each<[string, string, (settle: SQL) => Promise<unknown>]>([
  ["a deadlock", "db_contention", () => Promise.reject(failure("40P01"))],
  ["a network without a way to the server", "db_unavailable", () => Promise.reject(failure("ENETUNREACH"))],
  ["a server that takes no writes", "db_unavailable", inReadOnly],
])("a settle that did not come through for %s is made again, and settles", async (_, reason, first) => {
  await seed(db, upserts(5));
  await runBatch(settling(first), openSearch(db, client), recorded);
  expect(recorded.counted()[`outbox_db_errors_total{step=settle,reason=${reason}}`]).toBe(1);
  expect(batchResult(recorded)).toBe("ok");
  expect((await readRows(db)).map((r) => r.status)).toEqual(Array(5).fill("done"));
});

test("a batch that cannot be settled is told as lost, and its rows stay under lease until that runs out", async () => {
  await seed(db, upserts(2));
  await runBatch(
    settling(() => Promise.reject(new Error("nobody knows why"))),
    openSearch(db, client),
    recorded,
  );
  expect(recorded.told('"projection.batch_lost"')).toMatchObject([{ level: "error", batch_size: 2 }]);
  expect(recorded.told('"projection.process_batch"')).toEqual([]);
  expect(recorded.counted()["outbox_db_errors_total{step=settle,reason=unknown_exception}"]).toBe(1);
  expect((await readRows(db)).map((r) => r.status)).toEqual(["processing", "processing"]);
});

test("a renewal that finds the rows settled meanwhile tells of no lost lease", async () => {
  await seed(db, upserts(2));
  const isSettle = (statement: SQL) => new PgDialect().sqlToQuery(statement).sql.includes("moved as");
  let settled = false;
  const renewed = Promise.withResolvers<void>();
  const watched = intercept(db, async (statement) => {
    const answer = await db.execute(statement);
    if (settled) renewed.resolve();
    if (isSettle(statement)) {
      settled = true;
      await renewed.promise;
    }
    return answer;
  });
  await runBatch(watched, openSearch(db, client), recorded, { leaseMs: 600 });
  expect(batchResult(recorded)).toBe("ok");
  expect(recorded.told("lease_not_renewed")).toEqual([]);
});

test("a lease that ended with its settle is not renewed, however long the telling takes", async () => {
  await seed(db, upserts(2));
  const leaseMs = 600;
  let telling = false;
  const meanwhile: SQL[] = [];
  const watched = intercept(db, (statement) => {
    if (telling) meanwhile.push(statement);
    return db.execute(statement);
  });
  const { signals } = recorded;
  const slowly: WorkerSignals = {
    ...signals,
    claimed: (...claimed) => {
      const batch = signals.claimed(...claimed);
      return {
        ...batch,
        settled: async (...told) => {
          telling = true;
          // An interval as long as that of the renewal, which began earlier: by the second tick that one has had its own.
          const ticks = setInterval(leaseMs / 3)[Symbol.asyncIterator]();
          await ticks.next();
          await ticks.next();
          await ticks.return?.();
          await batch.settled(...told);
        },
      };
    },
  };
  await runBatch(watched, openSearch(db, client), { signals: slowly }, { leaseMs });
  expect(batchResult(recorded)).toBe("ok");
  expect(meanwhile).toEqual([]);
});

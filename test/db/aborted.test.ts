import { afterAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { databaseErrorCode, isContention, violatedConstraint } from "../../src/db/failure.ts";
import { rejection } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";

/** Statements of a transaction are sent together; when the first of them fails, Postgres answers 25P02 ("current transaction is aborted") to the others. */

const database = await testDatabase();
const { db, close } = database.open();
afterAll(close);
await db.execute(sql`create table held (id int primary key)`);
await db.execute(sql`insert into held values (1)`);

/** Each promise of a transaction with the code it was rejected with; undefined where it was not. */
async function codes(first: ReturnType<typeof sql>, options: Parameters<typeof database.open>[0] = {}) {
  const pool = database.open({ max: 1, ...options });
  const seen: (string | undefined)[] = [];
  const outcome = await rejection(
    pool.db.transaction(async (tx) => {
      const sent = [first, sql`select 1`, sql`select 2 as n`].map((statement) => tx.execute(statement).then((r) => r));
      for (const result of await Promise.allSettled(sent))
        seen.push(result.status === "rejected" ? databaseErrorCode(result.reason) : undefined);
      await Promise.all(sent);
    }),
  );
  await pool.close();
  return { seen, outcome };
}

test("whoever fails because an earlier statement of the transaction did, fails with that one's error", async () => {
  const { seen, outcome } = await codes(sql`insert into held values (1)`);
  expect(seen).toEqual(["23505", "23505", "23505"]);
  expect(violatedConstraint(outcome)).toBe("held_pkey");
});

test("a lock that cannot be had comes up as contention, whether it was waited for or not", async () => {
  await db.transaction(async (tx) => {
    await tx.execute(sql`select 1 from held for update`);
    const blocked = sql`update held set id = 2`;
    const byStatement = await codes(blocked, { statementTimeoutMs: 150 });
    expect([...byStatement.seen, isContention(byStatement.outcome)]).toEqual(["57014", "57014", "57014", true]);
    const nowait = await codes(sql`select 1 from held for update nowait`);
    expect([...nowait.seen, isContention(nowait.outcome)]).toEqual(["55P03", "55P03", "55P03", true]);
  });
});

test("a savepoint has a cause of its own, and what follows its rollback has none", async () => {
  const rows = await db.transaction(async (tx) => {
    const failed = await rejection(
      tx.transaction(async (inner) => {
        await Promise.all([
          inner.execute(sql`insert into held values (1)`).then((r) => r),
          inner.execute(sql`select 1`).then((r) => r),
        ]);
      }),
    );
    expect(databaseErrorCode(failed)).toBe("23505");
    return await tx.execute(sql`select 1`);
  });
  expect(rows).toHaveLength(1);
});

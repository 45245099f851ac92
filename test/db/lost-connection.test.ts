import { afterAll, expect, test } from "bun:test";
import { type AddressInfo, createConnection, createServer } from "node:net";
import { sql } from "drizzle-orm";
import { openDatabase, type Tx } from "../../src/db/client.ts";
import { databaseErrorCode, isUnavailable } from "../../src/db/failure.ts";
import { openGate } from "../support/gate.ts";
import { rejection } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";

const database = await testDatabase();
// One connection, so that whoever comes next gets the one that was lost.
const pool = database.open({ max: 1 });
const killer = database.open({ max: 1 });
afterAll(async () => {
  await pool.close();
  await killer.close();
});
await killer.db.execute(sql`create table written (by text)`);

const pidOf = async (tx: Tx) => (await tx.execute<{ pid: number }>(sql`select pg_backend_pid() as pid`))[0]?.pid ?? 0;
const kill = (pid: number) => killer.db.execute(sql`select pg_terminate_backend(${pid}, 5000)`);
const written = async () => (await killer.db.execute<{ by: string }>(sql`select by from written`)).map((r) => r.by);

test("what a transaction sends after its connection was lost does not run inside the next one", async () => {
  const resume = Promise.withResolvers<void>();
  const lost = Promise.withResolvers<void>();
  const outcome: { error?: unknown } = {};
  const dead = pool.db
    .transaction(async (tx) => {
      await kill(await pidOf(tx));
      lost.resolve();
      await resume.promise;
      await tx.execute(sql`insert into written values ('dead')`);
    })
    .catch((error: unknown) => {
      outcome.error = error;
    });
  await lost.promise;
  await pool.db.transaction(async (tx) => {
    await tx.execute(sql`insert into written values ('alive')`);
    resume.resolve();
    await dead;
    // A turn of the event loop for whatever the dead transaction still sends.
    await tx.execute(sql`select 1`);
    await tx.execute(sql`select 2`);
  });
  expect(outcome.error).toBeInstanceOf(Error);
  expect(await written()).toEqual(["alive"]);
});

test("a pool outlives connections that are lost inside a query, between two queries and before the commit", async () => {
  for (const when of ["query", "between", "commit", "query", "between", "commit"]) {
    const failed = pool.db.transaction(async (tx) => {
      await tx.execute(sql`insert into written values ('never')`);
      const pid = await pidOf(tx);
      if (when === "query") await tx.execute(sql`select pg_terminate_backend(pg_backend_pid())`);
      else await kill(pid);
      if (when === "between") await tx.execute(sql`insert into written values ('never')`);
    });
    expect(await rejection(failed)).toBeInstanceOf(Error);
    expect(await pool.db.execute<{ n: number }>(sql`select 1 as n`)).toMatchObject([{ n: 1 }]);
  }
  expect(await written()).toEqual(["alive"]);
});

test("a pool that was refused more often than it has connections connects once the server is there", async () => {
  const gate = openGate(database.address);
  const { behind } = gate;
  const query = () => behind.db.execute(sql`select 1`);
  for (let i = 0; i < 5; i++) expect(databaseErrorCode(await rejection(query()))).toBe("ENOENT");
  await gate.open();
  expect(await query()).toHaveLength(1);
  await gate.close();
  for (let i = 0; i < 5; i++) expect(isUnavailable(await rejection(query()))).toBeTrue();
  await gate.open();
  expect(await query()).toHaveLength(1);
  await behind.close();
  await gate.close();
});

test("a server that takes connections and closes them is unavailable at once, is not asked again and again, and is found when it is well", async () => {
  let taken = 0;
  let well = false;
  const { host, port, socketPath } = database.address;
  const server = createServer((near) => {
    taken += 1;
    if (!well) {
      near.end();
      return;
    }
    const far = socketPath === undefined ? createConnection({ host, port }) : createConnection({ path: socketPath });
    near.pipe(far).pipe(near);
    for (const socket of [near, far]) socket.on("error", () => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const behind = openDatabase(
    { ...database.address, host: "127.0.0.1", port: (server.address() as AddressInfo).port, socketPath: undefined },
    { max: 1, applicationName: "closing", statementTimeoutMs: 5000, prepare: true },
  );
  for (let i = 1; i <= 5; i += 1) {
    expect(isUnavailable(await rejection(behind.db.execute(sql`select 1`)))).toBe(true);
    expect(taken).toBe(i);
  }
  well = true;
  expect(await behind.db.execute(sql`select 1`)).toHaveLength(1);
  await behind.close();
  server.close();
});

test("rows that came before an error, or before the connection was lost, are no part of the next answer", async () => {
  const row = sql`n, repeat('x', 10000)`;
  const breaks = [
    sql`select ${row}, 1 / (300 - n) from generate_series(1, 500) n`,
    sql`select ${row}, case when n = 300 then pg_terminate_backend(pg_backend_pid()) end from generate_series(1, 500) n`,
  ];
  for (const query of breaks) {
    expect(await rejection(pool.db.execute(query))).toBeInstanceOf(Error);
    expect(Array.from(await pool.db.execute<{ n: number }>(sql`select 1 as n`))).toEqual([{ n: 1 }]);
  }
});

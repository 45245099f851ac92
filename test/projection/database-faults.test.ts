import { afterAll, beforeAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { readConfig } from "../../src/config.ts";
import { type DatabaseAddress, parseDatabaseUrl } from "../../src/db/address.ts";
import { type Database, openDatabase } from "../../src/db/client.ts";
import { isContention, isUnavailable } from "../../src/db/failure.ts";
import { migrate } from "../../src/db/migrate.ts";
import { type EmbeddedPostgres, startPostgres } from "../../src/embedded/postgres/start.ts";
import { deleteTag } from "../../src/library/tags.ts";
import { queues } from "../../src/outbox/queue.ts";
import { openWakeUps } from "../../src/outbox/wake.ts";
import { type RunningProjection, startProjection } from "../../src/projection/start.ts";
import { createTag, inOneWrite } from "../support/library.ts";
import { startProxy, type TcpProxy } from "../support/proxy.ts";
import { enqueue, newEvents } from "../support/queue.ts";
import { connect, startScriptedEngine } from "../support/scripted-engine.ts";
import { until } from "../support/until.ts";
import { quietSinks } from "../support/worker.ts";

/** What faults of Postgres do to both projections under load, in this process: a server of its own is shut down, its backends are ended, its connections fall silent. */

setDefaultTimeout(60_000);
const home = await mkdtemp(join(tmpdir(), "wordloom-faults-"));
await chmod(home, 0o755);
const dataDir = join(home, "postgres");
const recoveryMs = 8000;

let server: EmbeddedPostgres;
let address: DatabaseAddress;
let proxy: TcpProxy;
let direct: Database;
const engine = await startScriptedEngine();
const client = await connect(engine.url);

const open = (to: DatabaseAddress, applicationName: string, max: number) =>
  openDatabase(to, { max, applicationName, statementTimeoutMs: 1500, prepare: true });

beforeAll(async () => {
  server = await startPostgres({ dataDir, durability: "none" });
  await server.createDatabase("wordloom_test");
  address = parseDatabaseUrl(server.databaseUrl("wordloom_test"));
  direct = open(address, "test", 4);
  // What was answered must be there after a crash of the server; of the machine it need not be.
  await direct.db.execute(sql`alter database wordloom_test set synchronous_commit = on`);
  await migrate(direct.db, "test");
  await direct.close();
  direct = open(address, "test", 4);
  proxy = await startProxy(address);
});
afterAll(async () => {
  await direct.close();
  await proxy.close();
  await server.stop();
  await client.close();
  await engine.close();
  await rm(home, { recursive: true, force: true });
});
beforeEach(async () => {
  proxy.pass();
  engine.reset();
  await direct.db.execute(
    sql`truncate tags, search_index, search_outbox_events, chronicle_events, chronicle_outbox_events, chronicle_entries cascade`,
  );
});

/** Both projections at work on pools behind the proxy, and a writer that never stops; what goes wrong with a write is expected to be the database's fault. */
async function underLoad(
  work: (running: {
    readonly projections: RunningProjection[];
    readonly pool: Database;
    readonly written: () => number;
  }) => Promise<void>,
): Promise<void> {
  const pool = open(proxy.address, "worker", 6);
  const pings = open(proxy.address, "pings", 2);
  const writers = open(address, "writer", 3);
  const wakeUps = openWakeUps(pool);
  const stop = new AbortController();
  const config = readConfig({
    OUTBOX_DB_PING_INTERVAL_SECONDS: "0.1",
    OUTBOX_DB_PING_TIMEOUT_SECONDS: "0.5",
    OUTBOX_POLL_INTERVAL_MS: "50",
    OUTBOX_LEASE_SECONDS: "3",
    OUTBOX_RECLAIM_INTERVAL_SECONDS: "0.5",
    OUTBOX_BASE_BACKOFF_SECONDS: "0.05",
    OUTBOX_MAX_BACKOFF_SECONDS: "0.5",
  });
  const host = { config, db: pool.db, healthDb: pings.db, wakeUps, client, index: "scripted", workerId: "w1" };
  const projections = (["search", "chronicle"] as const).map((kind) =>
    startProjection(kind, host, quietSinks(), stop.signal),
  );
  let written = 0;
  const acknowledged: string[] = [];
  const write = async (n: number) => {
    while (!stop.signal.aborted) {
      written += 1;
      const name = `tag ${n} ${written}`;
      try {
        const tag = await createTag(writers.db, { name, color: "#FFFFFF" });
        if (written % 5 === 0) await inOneWrite(writers.db, (unit) => deleteTag(unit, tag.id));
        else acknowledged.push(tag.id);
        wakeUps.announce();
      } catch (error) {
        if (!isUnavailable(error) && !isContention(error)) throw error;
      }
      await Bun.sleep(5);
    }
  };
  const writing = [write(1), write(2)];
  let failed: unknown;
  try {
    await work({ projections, pool, written: () => acknowledged.length });
    stop.abort();
    await Promise.all(writing);
  } catch (error) {
    failed = error;
  }
  stop.abort();
  await Promise.all([...writing, ...projections.map((p) => p.done)]).catch((error: unknown) => {
    failed ??= error;
  });
  if (failed === undefined) {
    // What the drain gave back is due for a second run.
    const last = new AbortController();
    const rest = (["search", "chronicle"] as const).map((kind) =>
      startProjection(kind, host, quietSinks(), last.signal),
    );
    try {
      await until("everything is done", nothingLeft, 20_000);
      await nothingLost(acknowledged);
    } catch (error) {
      failed = error;
    }
    last.abort();
    await Promise.all(rest.map((p) => p.done));
  }
  await wakeUps.close();
  await Promise.all([pool, pings, writers].map((p) => p.close()));
  if (failed !== undefined) throw failed;
}

const nothingLeft = async () => {
  const [row] = await direct.db.execute<{ n: number }>(
    sql`select (select count(*) from search_outbox_events_live) + (select count(*) from chronicle_outbox_events_live) as n`,
  );
  return Number(row?.n) === 0;
};

/** Every acknowledged write is there; the target holds what search_index holds, version by version; every chronicle event has its entry. */
async function nothingLost(acknowledged: readonly string[]): Promise<void> {
  const rows = await direct.db.execute<{ id: string; version: string; deleted: boolean }>(
    sql`select entity_id::text as id, event_version::text as version, deleted_at is not null as deleted from search_index`,
  );
  const living = new Set(rows.filter((r) => !r.deleted).map((r) => r.id));
  expect(acknowledged.filter((id) => !living.has(id))).toEqual([]);
  const source = rows
    .map((r) => [`tag:${r.id}`, BigInt(r.version), r.deleted] as const)
    .toSorted((a, b) => (a[0] < b[0] ? -1 : 1));
  const target = Array.from(
    engine.held,
    ([id, held]) => [id, held.version, held.source === undefined] as const,
  ).toSorted((a, b) => (a[0] < b[0] ? -1 : 1));
  expect(target).toEqual(source);
  const [chronicle] = await direct.db.execute<{ missing: number }>(
    sql`select count(*)::int as missing from chronicle_events c left join chronicle_entries e on e.id = c.id where e.id is null`,
  );
  expect(chronicle?.missing).toBe(0);
}

const doneCount = async () => {
  const [row] = await direct.db.execute<{ n: number }>(
    sql`select least((select count(*) from search_outbox_events_done), (select count(*) from chronicle_outbox_events_done))::int as n`,
  );
  return row?.n ?? 0;
};
/** Both projections get on with events again, and say that they are ready. Returns the milliseconds that it took. */
async function recovered(projections: readonly RunningProjection[]): Promise<number> {
  const startedAt = performance.now();
  const before = await until(
    "the database answers",
    () =>
      doneCount().then(
        (n) => n + 1,
        () => 0,
      ),
    recoveryMs,
  );
  await until(
    "both projections go on",
    () =>
      doneCount().then(
        (n) => n > before,
        () => false,
      ),
    recoveryMs,
  );
  await until("both are ready", () => projections.every((p) => p.health.ready().ok), recoveryMs);
  return performance.now() - startedAt;
}
const unhealthy = (projections: readonly RunningProjection[]) => () =>
  projections.every((p) => !p.health.ready().ok && !p.health.ready().db.ok);

test("ten immediate restarts of Postgres under load: each is seen in the readiness, each is recovered from in time, and nothing is lost", async () => {
  const took: number[] = [];
  await underLoad(async ({ projections }) => {
    await until("the first events are done", async () => (await doneCount()) > 20, 20_000);
    for (let i = 0; i < 10; i += 1) {
      process.kill(server.pid, "SIGQUIT");
      await until("the readiness says so", unhealthy(projections));
      for (const p of projections) expect([p.health.ready().ok, p.health.live().ok]).toEqual([false, true]);
      await server.stop();
      server = await startPostgres({ dataDir, durability: "none" });
      took.push(await recovered(projections));
    }
  });
  expect(took.filter((ms) => ms > recoveryMs)).toEqual([]);
  process.stderr.write(`recovered within ${took.map((ms) => Math.round(ms)).join(", ")} ms\n`);
});

test("fifty backends ended at random under load cost no event", async () => {
  await underLoad(async ({ projections }) => {
    await until("the first events are done", async () => (await doneCount()) > 20, 20_000);
    let ended = 0;
    while (ended < 50) {
      const rows = await direct.db.execute<{ ok: boolean }>(sql`
        select pg_terminate_backend(pid) as ok from pg_stat_activity
         where datname = current_database() and application_name in ('worker', 'writer', 'pings') order by random() limit 2`);
      ended += rows.length;
      const before = await doneCount();
      await until("work goes on", async () => (await doneCount()) > before, recoveryMs);
    }
    expect(await recovered(projections)).toBeLessThan(recoveryMs);
  });
});

test("connections that fall silent are given up, the readiness says so, and the work goes on when the network is back", async () => {
  await underLoad(async ({ projections }) => {
    await until("the first events are done", async () => (await doneCount()) > 20, 20_000);
    for (let i = 0; i < 3; i += 1) {
      proxy.swallow();
      await until("the readiness says so", unhealthy(projections));
      proxy.pass();
      expect(await recovered(projections)).toBeLessThan(recoveryMs);
    }
  });
});

test("a pool whose every connection is taken delays the work and does not end it; the readiness says so, and recovers by itself", async () => {
  await underLoad(async ({ projections, pool }) => {
    await until("the first events are done", async () => (await doneCount()) > 20, 20_000);
    const released = new AbortController();
    const taken = Array.from({ length: pool.state().max }, () =>
      pool.db.transaction(async (tx) => {
        while (!released.signal.aborted) await tx.execute(sql`select pg_sleep(0.1)`);
      }),
    );
    await until("the readiness says so", unhealthy(projections));
    const says = { ok: false, last_error: "POOL_TIMEOUT" };
    for (const p of projections)
      expect(p.health.ready()).toMatchObject({ state: "RUNNING", reason: "db_unhealthy", db: says });
    for (const p of projections) expect(p.health.live().ok).toBe(true);
    released.abort();
    await Promise.all(taken);
    expect(await recovered(projections)).toBeLessThan(recoveryMs);
  });
});

test("rows that others have locked are tried again as db_contention, without costing an attempt where nothing was sent", async () => {
  await underLoad(async ({ projections }) => {
    await until("the first events are done", async () => (await doneCount()) > 20, 20_000);
    // Longer than a statement of the worker may take; the writers wait as well.
    const locker = openDatabase(address, {
      max: 1,
      applicationName: "locker",
      statementTimeoutMs: 30_000,
      prepare: true,
    });
    await locker.db.transaction(async (tx) => {
      await tx.execute(sql`lock table search_index, chronicle_entries in access exclusive mode`);
      // What was written before may be done, and nothing more is while the table is locked.
      const [told] = await tx.execute<{ entity: string; entry: string }>(
        sql`select (select entity_id from search_index where deleted_at is null limit 1) as entity, (select id from chronicle_entries limit 1) as entry`,
      );
      if (told === undefined) throw new Error("a query without a row");
      await enqueue(direct.db, queues.search, newEvents(1, { entityId: told.entity }));
      await enqueue(direct.db, queues.chronicle, newEvents(1, { entityType: "chronicle_event", entityId: told.entry }));
      const waits = async (queue: "search" | "chronicle") => {
        const [row] = await direct.db.execute<{ n: number; counted: number }>(
          sql`select count(*)::int as n, coalesce(max(counted_attempts), 0)::int as counted from ${sql.identifier(`${queue}_outbox_events_live`)} where error_reason = 'db_contention'`,
        );
        expect(row?.counted).toBe(0);
        return (row?.n ?? 0) > 0;
      };
      await until("the search projection waits", () => waits("search"));
      await until("the chronicle waits", () => waits("chronicle"));
    });
    await locker.close();
    expect(await recovered(projections)).toBeLessThan(recoveryMs);
  });
});

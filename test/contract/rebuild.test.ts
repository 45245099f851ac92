import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { type Client, errors } from "@elastic/elasticsearch";
import { sql } from "drizzle-orm";
import { openClaim } from "../../src/outbox/claim.ts";
import { queues } from "../../src/outbox/queue.ts";
import { emitOutbox, rebuilding } from "../../src/projection/rebuild.ts";
import { changedSince, readMark } from "../../src/projection/search/document.ts";
import { completeInterruptedTakeOver, needsTombstones, rebuildSearch } from "../../src/projection/search/rebuild.ts";
import { startSweep } from "../../src/projection/sweep.ts";
import { ensureIndex, openNextIndex } from "../../src/search/indices.ts";
import { emptyQueue, openSearch, readRows, recordSignals, runBatch, seed } from "../support/batch.ts";
import { rejection } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";
import { openTargets } from "./targets.ts";

/** A rebuild on engines that are not of the tests' making: the embedded one, and those of ELASTIC_CONTRACT_URL. */

const database = await testDatabase();
const { db, close } = database.open();
const recorded = recordSignals();
afterAll(close);

const never = new AbortController().signal;
const live = (text: string) => ({ op: "upsert", version: 7n, row: "live", text }) as const;
const deleted = { op: "delete", version: 7n, row: "tombstone" } as const;

/** A transaction of any database of the server, begun before a row was written, makes the row one that may have changed: so once those of other tests are over. */
const settled = () =>
  until(
    "older transactions to end",
    async () => {
      const mark = await readMark(db);
      return (await db.execute(sql`select 1 from search_index s where ${changedSince(mark)} limit 1`)).length === 0;
    },
    25_000,
  );

/** Ends whatever holds the lock of a rebuild. */
const endRebuilds = () =>
  until("the locks to go", async () => {
    const held = await db.execute(sql`
      select pg_terminate_backend(l.pid) from pg_locks l join pg_database d on d.oid = l.database
       where l.locktype = 'advisory' and d.datname = current_database()`);
    return held.length === 0;
  });

/** `client`, but `work` is done just before a take-over, and `after` when it has happened. */
function beforeTakeOver(client: Client, work: () => Promise<unknown>, after: () => unknown = () => undefined): Client {
  const updateAliases: UpdateAliases = async (request) => {
    if (!takesOver(request)) return await client.indices.updateAliases(request);
    await work();
    const answer = await client.indices.updateAliases(request);
    await after();
    return answer;
  };
  return withIndices(client, { updateAliases });
}

type UpdateAliases = (
  request: Parameters<Client["indices"]["updateAliases"]>[0],
) => ReturnType<Client["indices"]["updateAliases"]>;

const takesOver = (request: Parameters<UpdateAliases>[0]) =>
  request?.actions?.some((action) => action !== undefined && "add" in action && action.add?.is_write_index === true) ===
  true;

/** `client`, with calls of its own about indices. */
function withIndices(
  client: Client,
  own: {
    readonly updateAliases?: UpdateAliases;
    readonly delete?: (request: Parameters<Client["indices"]["delete"]>[0]) => Promise<unknown>;
  },
): Client {
  const calls = Object.fromEntries(Object.entries(own).map(([name, value]) => [name, { value }]));
  return Object.create(client, { indices: { value: Object.create(client.indices, calls) } });
}

/** `client`, but `work` is done before its request number `n`. */
function beforeRequest(client: Client, n: number, work: () => Promise<unknown>): Client {
  let sent = 0;
  const request = async (...args: Parameters<typeof client.transport.request>) => {
    sent += 1;
    if (sent === n) await work();
    return await client.transport.request(...args);
  };
  const transport = Object.create(client.transport, { request: { value: request } });
  return Object.create(client, { transport: { value: transport } });
}

async function readStatus() {
  const [row] = await db.execute<{ success: boolean | null; error: string | null; ended: boolean; took: boolean }>(sql`
    select last_rebuild_success as success, last_rebuild_error as error, last_rebuild_finished_at >= last_rebuild_started_at as ended,
           last_rebuild_duration_seconds >= 0 as took
      from projection_status where projection_name = ${queues.search.projection}`);
  return row;
}

describe.each(await openTargets())("%s", (_, { client, newName }) => {
  let alias = "";
  beforeEach(async () => {
    await emptyQueue(db);
    await db.execute(sql`truncate projection_status`);
    alias = newName();
    await ensureIndex(client, { alias, environment: "test" });
  });

  const indices = async () => Object.keys(await client.indices.getAlias({ index: `${alias}-*` })).toSorted();
  const behind = async () => Object.keys(await client.indices.getAlias({ index: alias }));
  const project = () => runBatch(db, openSearch(db, client, { index: alias, timeoutMs: 20_000 }), recorded);
  const rebuild = (of: Partial<Parameters<typeof rebuildSearch>[2]> = {}, by = client) =>
    rebuildSearch(db, by, {
      search: { alias, environment: "test" },
      maxBytes: 5_000_000,
      timeoutMs: 20_000,
      signal: never,
      onProgress: () => undefined,
      ...of,
    });
  /** Text by id, of all that is in the index. */
  const documents = async () => {
    await client.indices.refresh({ index: alias });
    const found = await client.search<{ text: string }>({ index: alias, size: 10_000 });
    return new Map(found.hits.hits.map((hit) => [hit["_id"] ?? "", hit["_source"]?.text]));
  };
  /** What has to be there, by Postgres. */
  const wanted = async () => {
    const rows = await db.execute<{ id: string; text: string }>(
      sql`select entity_type || ':' || entity_id as id, text from search_index where deleted_at is null`,
    );
    return new Map(rows.map(({ id, text }) => [id, text]));
  };
  const write = (entityId: string, text: string | null) =>
    db.execute(sql`
      update search_index set event_version = event_version + 1, text = ${text ?? ""}, deleted_at = case when ${text === null} then now() end, updated_at = now()
       where entity_id = ${entityId}::uuid`);

  test("a rebuild leaves exactly what Postgres has, whatever the index had, and one index", async () => {
    const [a, , gone] = await seed(db, [live("one"), live("two"), live("three"), deleted]);
    await project();
    // Not written by us: a document of nobody's, one that is missing, one with another text in its newest version.
    await db.execute(sql`delete from search_index where entity_id = ${gone?.entityId}::uuid`);
    const absent = { _index: alias, _id: a?.documentId ?? "", version: 8, version_type: "external" } as const;
    await client.bulk({ operations: [{ delete: absent }] });
    await db.execute(sql`update search_index set text = 'other' where text = 'two'`);
    await settled();
    expect(await documents()).not.toEqual(await wanted());

    const seen: number[] = [];
    const rebuilt = await rebuild({ onProgress: (done, total) => seen.push(done, total) });
    expect(rebuilt).toEqual({ index: `${alias}-000002`, documents: 2, changed: 0, refused: [] });
    expect(seen).toEqual([2, 2]);
    expect(await documents()).toEqual(await wanted());
    expect(await indices()).toEqual([`${alias}-000002`]);
    expect(await behind()).toEqual([`${alias}-000002`]);
    expect(await readStatus()).toEqual({ success: true, error: null, ended: true, took: true });

    expect((await rebuild()).index).toBe(`${alias}-000003`);
    expect(await documents()).toEqual(await wanted());
  });

  test("of an index without a document, and of more documents than a page and a request hold", async () => {
    expect(await rebuild()).toMatchObject({ documents: 0 });
    await seed(
      db,
      Array.from({ length: 1101 }, (_, i) => live(`text ${i}`)),
    );
    const parts: number[] = [];
    expect(await rebuild({ maxBytes: 20_000, onProgress: (done) => parts.push(done) })).toMatchObject({
      documents: 1101,
    });
    expect(parts).toEqual([500, 1000, 1101]);
    expect((await client.count({ index: alias })).count).toBe(1101);
  });

  test("what the old index was still given is in the new one: changed, deleted and new documents", async () => {
    const [a, b] = await seed(db, [live("one"), live("two"), live("three")]);
    await project();
    await emptyEvents();
    await settled();
    const meanwhile = async () => {
      await write(a?.entityId ?? "", "one again");
      await write(b?.entityId ?? "", null);
      const [c] = await seed(db, [
        live("four"),
        { ...live(""), version: 8n, entityId: a?.entityId ?? "" },
        { ...deleted, version: 8n, entityId: b?.entityId ?? "" },
      ]);
      await project();
      // The old index has them, and no event is left to say so.
      expect(await client.exists({ index: alias, id: c?.documentId ?? "" })).toBe(true);
      expect((await readRows(db)).every(({ status }) => status === "done")).toBe(true);
      await emptyEvents();
    };
    const rebuilt = await rebuild({}, beforeTakeOver(client, meanwhile));
    expect(rebuilt).toMatchObject({ documents: 3, changed: 3 });
    await project();
    expect(await documents()).toEqual(await wanted());
    expect((await documents()).size).toBe(3);
  });

  test("what was written behind its back while it read is in the new index when it takes over", async () => {
    await seed(
      db,
      Array.from({ length: 600 }, (_, i) => live(`text ${i}`)),
    );
    await emptyEvents();
    await settled();
    const [first, second] = await db.execute<{ id: string }>(
      sql`select entity_id::text as id from search_index order by id limit 2`,
    );
    const meanwhile = async () => {
      await write(first?.id ?? "", "changed");
      await write(second?.id ?? "", null);
      await settled();
    };
    let atTakeOver: unknown;
    const look = async () => {
      await client.indices.refresh({ index: `${alias}-000002` });
      const page = await client.search<{ text: string }>({ index: `${alias}-000002`, size: 1000 });
      atTakeOver = new Map(page.hits.hits.map((hit) => [hit["_id"] ?? "", hit["_source"]?.text]));
    };
    const rebuilt = await rebuild({}, beforeTakeOver(beforeRequest(client, 2, meanwhile), look));
    expect(rebuilt).toMatchObject({ documents: 600, changed: 2 });
    expect(atTakeOver).toEqual(await wanted());
    expect(await readRows(db)).toEqual([]);
  });

  test("a take-over whose answer is lost has happened all the same, with what was written meanwhile", async () => {
    const [a] = await seed(db, [live("one")]);
    await emptyEvents();
    await settled();
    const lost = () => Promise.reject(new errors.ConnectionError("lost"));
    const changing = beforeTakeOver(client, () => write(a?.entityId ?? "", "two"), lost);
    expect(await rebuild({}, changing)).toMatchObject({ index: `${alias}-000002`, changed: 1 });
    await project();
    expect(await documents()).toEqual(await wanted());
    expect(await indices()).toEqual([`${alias}-000002`]);
  });

  test("what was written in the moment of a take-over is put into the queue by a worker, when the rebuild is killed before it has", async () => {
    const [a] = await seed(db, [live("one")]);
    await emptyEvents();
    await settled();
    const { promise: taken, resolve: over } = Promise.withResolvers<void>();
    const silence = new Promise<never>(() => undefined);
    const killed = beforeTakeOver(
      client,
      () => write(a?.entityId ?? "", "two"),
      () => {
        over();
        return silence;
      },
    );
    const rebuilt = rebuild({}, killed).catch((error: unknown) => error);
    await taken;
    expect(await behind()).toEqual([`${alias}-000002`]);
    // It may be about to do it.
    expect(await completeInterruptedTakeOver(db)).toBe(0);
    await endRebuilds();
    await rebuilt;
    expect(await readRows(db)).toEqual([]);
    // However many workers there are, it is done once.
    const completed = await Promise.all(Array.from({ length: 4 }, () => completeInterruptedTakeOver(db)));
    expect(completed.toSorted((a, b) => a - b)).toEqual([0, 0, 0, 1]);
    expect(await completeInterruptedTakeOver(db)).toBe(0);
    await project();
    expect(await documents()).toEqual(await wanted());
  });

  test("a document that was built before its delete, and is sent after a rebuild, does not come back", async () => {
    const [secret] = await seed(db, [live("secret"), live("other")]);
    const claimed = await openClaim(db, queues.search, { owner: "slow", leaseMs: 60_000 })(1);
    if (claimed === null) throw new Error("nothing was claimed");
    const signals = recorded.signals.claimed(claimed, { startedAt: Date.now(), tookMs: 1, limit: 1, mode: "atomic" });
    const prepared = await openSearch(db, client, { index: alias }).prepare(claimed, signals);
    if (!("send" in prepared)) throw new Error("there is nothing to send");
    await write(secret?.entityId ?? "", null);
    await seed(db, [{ ...deleted, version: 8n, entityId: secret?.entityId ?? "" }]);
    await project();
    await settled();
    await rebuild();
    const pacing = { waitMs: () => 0, answerMs: null, answeredLate: () => undefined };
    const { decisions } = await prepared.send(never, pacing);
    expect([...decisions.values()]).toMatchObject([{ outcome: { kind: "done", result: "superseded" } }]);
    expect(await documents()).toEqual(await wanted());
  });

  test("a take-over that a busy master does late, after its answer was given up, costs no index", async () => {
    await seed(db, [live("one"), live("two")]);
    await project();
    await settled();
    // The master has it in its line. Whatever comes next comes behind it.
    let inLine: (() => Promise<unknown>) | undefined;
    const theLine = async () => {
      const late = inLine;
      inLine = undefined;
      await late?.();
    };
    const busy = withIndices(client, {
      updateAliases: async (request) => {
        if (!takesOver(request)) {
          await theLine();
          return await client.indices.updateAliases(request);
        }
        inLine = () => client.indices.updateAliases(request);
        throw new errors.TimeoutError("Request timed out");
      },
      delete: async (request) => {
        await theLine();
        return await client.indices.delete(request);
      },
    });
    await rejection(rebuild({}, busy));
    expect(await behind()).toHaveLength(1);
    expect(await documents()).toEqual(await wanted());
    // One that comes when the index is about to go finds that it has gone from the alias.
    let late: (() => Promise<unknown>) | undefined;
    let became: unknown;
    const later = withIndices(client, {
      updateAliases: async (request) => {
        if (!takesOver(request)) return await client.indices.updateAliases(request);
        late = () => client.indices.updateAliases(request);
        throw new errors.TimeoutError("Request timed out");
      },
      delete: async (request) => {
        became = await late?.().catch((error: unknown) => error);
        return await client.indices.delete(request);
      },
    });
    await rejection(rebuild({}, later));
    expect(became).toBeInstanceOf(Error);
    expect(await documents()).toEqual(await wanted());
    await rebuild();
    expect(await indices()).toEqual(await behind());
  });

  /** Takes over, and is killed before it can do what comes after. */
  const killedAfterTakeOver = async (before: () => Promise<unknown> = () => Promise.resolve()) => {
    const { promise: taken, resolve: over } = Promise.withResolvers<void>();
    const silence = new Promise<never>(() => undefined);
    const silent = () => {
      over();
      return silence;
    };
    const rebuilt = rebuild({}, beforeTakeOver(client, before, silent)).catch((error: unknown) => error);
    await taken;
    await endRebuilds();
    await rebuilt;
    await settled();
  };

  test("what a take-over owes is still owed when the next rebuild fails at its own", async () => {
    const [a] = await seed(db, [live("one")]);
    await emptyEvents();
    await settled();
    await killedAfterTakeOver(() => write(a?.entityId ?? "", "two"));
    const away = () => Promise.reject(new errors.ConnectionError("away"));
    await rejection(rebuild({}, beforeTakeOver(client, away)));
    expect(await completeInterruptedTakeOver(db)).toBe(1);
    await project();
    expect(await documents()).toEqual(await wanted());
  });

  test("what the engine refuses has its event also when the rebuild is killed at its take-over", async () => {
    const [, bad] = await seed(db, [live("one"), live("two"), live("three")]);
    await emptyEvents();
    await db.execute(sql`update search_index set updated_at = '12345-01-01' where entity_id = ${bad?.entityId}::uuid`);
    await settled();
    await killedAfterTakeOver();
    expect(await completeInterruptedTakeOver(db)).toBe(1);
    await project();
    expect(await readRows(db)).toMatchObject([{ status: "failed", reason: "es_4xx" }]);
  });

  test("a tombstone stays while a rebuild runs that may have read what was alive, and while a take-over owes something", async () => {
    const [secret] = await seed(db, [live("secret"), live("other")]);
    await project();
    await settled();
    const tombstones = async () =>
      (await db.execute(sql`select 1 from search_index where deleted_at is not null`)).length;
    /** All that is older than nothing at all. */
    const prune = async () => {
      recorded.forget();
      const options = { workerId: "w1", reclaimIntervalMs: 0, maxProcessingMs: 300_000, maxAttempts: 10 };
      const stop = startSweep(db, queues.search, { ...options, retentionHours: 0 }, recorded.signals, () => undefined);
      // The events of the batches before go in any case.
      await until("the prune", () => recorded.told('"outbox.pruned"').length > 0);
      await stop();
    };
    const meanwhile = async () => {
      await write(secret?.entityId ?? "", null);
      await seed(db, [{ ...deleted, version: 8n, entityId: secret?.entityId ?? "" }]);
      await project();
      await prune();
      expect(await tombstones()).toBe(1);
    };
    await rebuild({}, beforeRequest(client, 1, meanwhile));
    await project();
    expect(await documents()).toEqual(await wanted());
    await seed(db, [live("third")]);
    await project();
    await prune();
    expect(await tombstones()).toBe(0);
    await db.execute(sql`update projection_status set take_over_since = pg_current_xact_id()`);
    expect(await db.transaction(needsTombstones)).toBe(true);
    await completeInterruptedTakeOver(db);
    expect(await db.transaction(needsTombstones)).toBe(false);
  });

  test("a rebuild that has lost its lock leaves alone what another one has set aside since", async () => {
    await seed(db, [live("one")]);
    await settled();
    const { promise: reached, resolve: here } = Promise.withResolvers<void>();
    const { promise: freed, resolve: goOn } = Promise.withResolvers<void>();
    const { promise: gaveUp, resolve: givingUp } = Promise.withResolvers<void>();
    const stuck = Object.create(client.indices, {
      updateAliases: {
        value: async () => {
          here();
          await freed;
          throw new errors.ConnectionError("lost");
        },
      },
      // What it asks for last: whether it has taken over in spite of that.
      getAlias: {
        value: async (...args: Parameters<typeof client.indices.getAlias>) => {
          const answer = await client.indices.getAlias(...args);
          void freed.then(givingUp);
          return answer;
        },
      },
    });
    const first = rejection(rebuild({}, Object.create(client, { indices: { value: stuck } })));
    await reached;
    await endRebuilds();
    await first;
    const second = await rebuild(
      {},
      beforeTakeOver(client, async () => {
        const before = await indices();
        goOn();
        await gaveUp;
        // As long as it would take to drop what is aside.
        for (let asked = 0; asked < 20; asked += 1) expect(await indices()).toEqual(before);
      }),
    );
    expect(second).toMatchObject({ documents: 1 });
    expect((await documents()).size).toBe(1);
  });

  test("a rebuild waits for a worker that needs its lock for a moment", async () => {
    const [held, free] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const worker = db.transaction(async (tx) => {
      await needsTombstones(tx);
      held.resolve();
      await free.promise;
    });
    await held.promise;
    const rebuilt = rebuild();
    // It has asked by then.
    for (let asked = 0; asked < 50; asked += 1) await db.execute(sql`select 1`);
    free.resolve();
    await worker;
    expect(await rebuilt).toMatchObject({ documents: 0 });
  });

  test("what a transaction wrote that began before the rebuild and committed during it is in the new index", async () => {
    const [a] = await seed(db, [live("one")]);
    await project();
    await emptyEvents();
    await settled();
    const [written, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const late = db.transaction(async (tx) => {
      await tx.execute(
        sql`update search_index set event_version = 8, text = 'late' where entity_id = ${a?.entityId ?? ""}::uuid`,
      );
      written.resolve();
      await held.promise;
    });
    await written.promise;
    const commit = async () => {
      held.resolve();
      await late;
    };
    expect(await rebuild({}, beforeTakeOver(client, commit))).toMatchObject({ documents: 1, changed: 1 });
    await project();
    expect(await documents()).toEqual(new Map([[a?.documentId ?? "", "late"]]));
  });

  test("one that is stopped leaves the index as it was, says so, and the next one clears up", async () => {
    await seed(
      db,
      Array.from({ length: 600 }, (_, i) => live(`text ${i}`)),
    );
    const stop = new AbortController();
    const error = await rejection(rebuild({ signal: stop.signal, onProgress: () => stop.abort() }));
    expect(error).toMatchObject({ exitCode: 1, message: expect.stringContaining("as it was; run it again") });
    expect(await indices()).toEqual([`${alias}-000001`]);
    expect(await readStatus()).toMatchObject({
      success: false,
      error: expect.stringContaining("stopped"),
      ended: true,
    });

    // As a killed one leaves it.
    await openNextIndex(client, { alias, environment: "test" });
    expect(await indices()).toEqual([`${alias}-000001`, `${alias}-000002`]);
    await rebuild();
    expect(await indices()).toEqual([`${alias}-000002`]);
    expect((await documents()).size).toBe(600);
    expect(await readStatus()).toMatchObject({ success: true, error: null });
  });

  test("an engine that is away for a moment is asked again, and a rebuild that waits for it can be stopped", async () => {
    await seed(db, [live("one")]);
    const away = () => Promise.reject(new errors.ConnectionError("away"));
    expect(await rebuild({}, beforeRequest(client, 1, away))).toMatchObject({ documents: 1, refused: [] });

    const stop = new AbortController();
    const stopWhileAway = async () => {
      // When it has begun to wait.
      setImmediate(() => stop.abort());
      await away();
    };
    const stopped = await rejection(rebuild({ signal: stop.signal }, beforeRequest(client, 1, stopWhileAway)));
    expect(stopped).toMatchObject({ exitCode: 1, message: expect.stringContaining("stopped before the end") });
    expect(await indices()).toEqual([`${alias}-000002`]);
  });

  test("two at a time are refused", async () => {
    await rebuilding(db, queues.search, async () => {
      expect(await rejection(rebuild())).toMatchObject({ exitCode: 5 });
      expect(
        await rejection(emitOutbox(db, queues.search, { signal: never, onProgress: () => undefined })),
      ).toMatchObject({
        exitCode: 5,
      });
    });
    expect(await indices()).toEqual([`${alias}-000001`]);
  });

  test("a document that the engine refuses is named, has its event again, and the others are there", async () => {
    const [, bad] = await seed(db, [live("one"), live("two"), live("three")]);
    await emptyEvents();
    await db.execute(sql`update search_index set updated_at = '12345-01-01' where entity_id = ${bad?.entityId}::uuid`);
    await settled();
    const rebuilt = await rebuild();
    expect(rebuilt.refused).toEqual([{ id: bad?.documentId ?? "", error: expect.stringContaining("updated_at") }]);
    expect(new Set((await documents()).values())).toEqual(new Set(["one", "three"]));
    await project();
    expect(await readRows(db)).toMatchObject([{ status: "failed", reason: "es_4xx" }]);
  });

  test("an engine that refuses most of the documents gets no new index: the old one stays", async () => {
    const [a] = await seed(db, [live("one"), live("two"), live("three")]);
    await project();
    const before = await documents();
    await db.execute(sql`update search_index set updated_at = '12345-01-01' where entity_id <> ${a?.entityId}::uuid`);
    expect(await rejection(rebuild())).toMatchObject({
      exitCode: 1,
      message: expect.stringMatching(/^Elasticsearch refuses 2 documents \(.*updated_at.*as it was/),
    });
    expect(await documents()).toEqual(before);
    expect(await indices()).toEqual([`${alias}-000001`]);
  });

  test("an index that is not ours loses the alias and nothing else", async () => {
    await client.indices.delete({ index: `${alias}-000001` });
    await client.indices.create({ index: `${alias}-old`, aliases: { [alias]: {} } });
    await seed(db, [live("one")]);
    await rebuild();
    expect(await indices()).toEqual([`${alias}-000001`, `${alias}-old`]);
    expect(await behind()).toEqual([`${alias}-000001`]);
    expect((await documents()).size).toBe(1);
  });

  test("with events in place of an index, the workers write what it lacks", async () => {
    const [a] = await seed(db, [live("one"), live("two"), deleted]);
    await project();
    await emptyEvents();
    await client.indices.delete({ index: `${alias}-000001` });
    await ensureIndex(client, { alias, environment: "test" });
    const seen: number[] = [];
    const options = { signal: never, onProgress: (done: number, total: number) => void seen.push(done, total) };
    expect(await emitOutbox(db, queues.search, options)).toBe(3);
    expect(seen).toEqual([3, 3]);
    await project();
    const results = (await readRows(db)).map(({ result }) => result ?? "");
    expect(results.toSorted((x, y) => x.localeCompare(y))).toEqual(["applied", "applied", "noop"]);
    expect(await documents()).toEqual(await wanted());
    expect((await client.get({ index: alias, id: a?.documentId ?? "" }))["_version"]).toBe(7);
  });
});

const emptyEvents = () => db.execute(sql`truncate search_outbox_events, outbox_leases`);

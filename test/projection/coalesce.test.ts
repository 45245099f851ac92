import { expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import fc from "fast-check";
import { readConfig } from "../../src/config.ts";
import { openClaim } from "../../src/outbox/claim.ts";
import { queues } from "../../src/outbox/queue.ts";
import { processBatch, type Turn } from "../../src/projection/batch.ts";
import { createPace } from "../../src/projection/pace.ts";
import {
  batchResult,
  emptyQueue,
  makeDue,
  openSearch,
  readRows,
  recordSignals,
  runBatch,
  type Seed,
  seed,
} from "../support/batch.ts";
import { type Reply, requestError } from "../support/scripted-engine.ts";
import { openScriptedSearch } from "../support/scripted-search.ts";

const { db, engine, client, recorded } = await openScriptedSearch({ max: 6 });

/** Events of one entity, in this order. */
async function write(entityId: string, events: readonly Pick<Seed, "op" | "version" | "row">[]): Promise<void> {
  for (const event of events) await seed(db, [{ ...event, entityId }]);
}

const live = (version: bigint) => ({ op: "upsert", version, row: "live" }) as const;

test("k events of one entity become one item at the version of now; the others are superseded, unsent and counted", async () => {
  const [one, two] = [crypto.randomUUID(), crypto.randomUUID()];
  await write(one, [live(1n), live(2n), live(3n)]);
  await write(two, [live(1n), { op: "delete", version: 2n, row: "tombstone" }]);

  await runBatch(db, openSearch(db, client), recorded);

  expect(engine.requests.map((r) => r.items.map(({ op, id, version }) => [op, id, version]))).toEqual([
    [
      ["index", `tag:${one}`, 3n],
      ["delete", `tag:${two}`, 2n],
    ],
  ]);
  const rows = (await readRows(db)).map(({ status, result, attempts }) => [status, result, attempts]);
  const superseded = ["done", "superseded", 0];
  expect(rows).toEqual([superseded, superseded, ["done", "applied", 1], superseded, ["done", "noop", 1]]);
  expect(recorded.counted()).toMatchObject({
    "outbox_superseded_total{op=upsert}": 3,
    "outbox_processed_total{op=upsert}": 4,
    "outbox_processed_total{op=delete}": 1,
  });
  expect(batchResult(recorded)).toBe("ok");
});

test("a batch tells how many documents it has made ready, none where nothing is left to be sent", async () => {
  const debugged = recordSignals({ LOG_LEVEL: "debug" });
  const prepared = () => {
    const lines = debugged.told('"es_bulk_prepare"');
    debugged.forget();
    return lines.map(({ batch_size, bulk_ops, result }) => [batch_size, bulk_ops, result]);
  };
  await write(crypto.randomUUID(), [live(1n), live(2n), live(3n)]);
  await write(crypto.randomUUID(), [live(1n)]);
  await runBatch(db, openSearch(db, client), debugged);
  expect(prepared()).toEqual([[4, 2, "prepared"]]);

  await write(crypto.randomUUID(), [live(1n)]);
  await db.execute(sql`update search_outbox_events set op = 'unknown' where status = 'pending'`);
  await runBatch(db, openSearch(db, client), debugged);
  expect(prepared()).toEqual([[1, 0, "noop"]]);
});

test("the newest version speaks for its entity, not the newest id: with the row gone, the delete carries it", async () => {
  const id = crypto.randomUUID();
  await write(id, [
    { op: "delete", version: 9n, row: "missing" },
    { op: "upsert", version: 4n, row: "missing" },
  ]);
  engine.held.set(`tag:${id}`, { version: 8n, source: "{}" });
  await runBatch(db, openSearch(db, client), recorded);
  expect(engine.held.get(`tag:${id}`)).toEqual({ version: 9n, source: undefined });
});

test("when the one that speaks is refused, the others are not sent in its place: what it would have said is said later", async () => {
  const id = crypto.randomUUID();
  await write(id, [live(1n), live(2n)]);
  engine.item = () => ({ status: 429, error: { type: "es_rejected_execution_exception", reason: "" } });
  const lastSuccess = () => recorded.gauge("outbox_last_success_timestamp_seconds");
  const before = lastSuccess();
  await runBatch(db, openSearch(db, client), recorded);
  // One is done, but nothing has reached the target.
  expect(lastSuccess()).toBe(before);
  expect((await readRows(db)).map((row) => [row.status, row.attempts])).toEqual([
    ["done", 0],
    ["pending", 1],
  ]);
  engine.item = () => undefined;
  await makeDue(db);
  await runBatch(db, openSearch(db, client), recorded);
  expect(engine.held.get(`tag:${id}`)?.version).toBe(2n);
  expect(lastSuccess()).not.toBe(before);
});

type Step =
  | { readonly kind: "write"; readonly entity: number; readonly version: number }
  | { readonly kind: "claim"; readonly limit: number }
  | { readonly kind: "send"; readonly which: number; readonly fate: "answered" | "lost" | "refused" }
  | { readonly kind: "due" };

const entities = 3;
const steps: fc.Arbitrary<Step[]> = fc
  // The versions of each entity's events, in the order in which they are appended.
  .tuple(...Array.from({ length: entities }, () => fc.shuffledSubarray([1, 2, 3, 4, 5], { minLength: 1 })))
  .chain((versions) => {
    const writes = versions.flatMap((of, entity) => of.map((version): Step => ({ kind: "write", entity, version })));
    const others = fc.array(
      fc.oneof(
        fc.record({ kind: fc.constant("claim" as const), limit: fc.integer({ min: 1, max: 6 }) }),
        fc.record({
          kind: fc.constant("send" as const),
          which: fc.nat(1),
          fate: fc.constantFrom("answered", "lost", "refused"),
        }),
        fc.record({ kind: fc.constant("due" as const) }),
      ),
      { minLength: 8, maxLength: 24 },
    );
    return others.chain((rest) =>
      fc.shuffledSubarray([...writes, ...rest], { minLength: writes.length + rest.length }),
    );
  });

test("any interleaving of two workers over shuffled versions, lost answers and retries ends at the newest version", async () => {
  const fates: Record<
    Extract<Step, { kind: "send" }>["fate"],
    (r: Parameters<typeof engine.carryOut>[0]) => Reply | undefined
  > = {
    answered: () => undefined,
    lost: (request) => ({ kind: "cut", body: JSON.stringify({ items: engine.carryOut(request) }) }),
    refused: () => requestError(503, "unavailable_shards_exception", "no"),
  };
  const projection = openSearch(db, client);
  const pace = () => createPace(2, recorded.signals, () => undefined);
  const claims = ["w1", "w2"].map((owner) => openClaim(db, queues.search, { owner, leaseMs: 60_000 }));

  await fc.assert(
    fc.asyncProperty(steps, async (script) => {
      await emptyQueue(db);
      engine.reset();
      const ids = Array.from({ length: entities }, () => crypto.randomUUID());
      const newest = new Map<string, number>();
      /** Batches under lease that wait for their turn to send: one a worker. */
      const held: { worker: number; go: () => Promise<void> }[] = [];
      const seen = new Map<string, bigint>();

      for (const step of script) {
        if (step.kind === "write") {
          const entityId = ids[step.entity] ?? "";
          // An even version is a delete.
          const gone = step.version % 2 === 0;
          await write(entityId, [
            { op: gone ? "delete" : "upsert", version: BigInt(step.version), row: gone ? "tombstone" : "live" },
          ]);
          newest.set(entityId, Math.max(newest.get(entityId) ?? 0, step.version));
        } else if (step.kind === "due") {
          await makeDue(db);
        } else if (step.kind === "claim") {
          const worker = [0, 1].find((w) => !held.some((h) => h.worker === w));
          const lease = worker === undefined ? null : await claims[worker]?.(step.limit);
          if (worker === undefined || !lease) continue;
          const gate = Promise.withResolvers<void>();
          const waiting = Promise.withResolvers<void>();
          const turn: Turn = async () => {
            waiting.resolve();
            await gate.promise;
            return { granted: true, done: () => undefined };
          };
          const batch = recorded.signals.claimed(lease, {
            startedAt: Date.now(),
            tookMs: 1,
            limit: 500,
            mode: "atomic",
          });
          const { signals } = recorded;
          const leave = new AbortController().signal;
          const host = { db, projection, pace: pace(), signals, leaseMs: 60_000, maxProcessingMs: 300_000, leave };
          const done = processBatch(host, lease, turn, batch);
          // The documents are built before anything else happens, and may be old when they are sent.
          await waiting.promise;
          held.push({
            worker,
            go: async () => {
              gate.resolve();
              await done;
            },
          });
        } else {
          const [batch] = held.splice(Math.min(step.which, held.length - 1), held.length === 0 ? 0 : 1);
          engine.whole = fates[step.fate];
          await batch?.go();
        }
        for (const [id, { version }] of engine.held) {
          expect(version >= (seen.get(id) ?? 0n)).toBe(true);
          seen.set(id, version);
        }
      }

      engine.whole = () => undefined;
      for (const batch of held) await batch.go();
      await makeDue(db);
      while (await runBatch(db, projection, recorded)) await makeDue(db);
      expect((await readRows(db)).filter((row) => row.status !== "done")).toEqual([]);
      for (const [id, version] of newest) {
        const document = engine.held.get(`tag:${id}`);
        expect([id, document?.version, document?.source === undefined]).toEqual([
          id,
          BigInt(version),
          version % 2 === 0,
        ]);
      }
      const [left] = await db.execute<{ n: number }>(sql`select count(*)::int as n from search_outbox_events_live`);
      expect(left?.n).toBe(0);
    }),
    { numRuns: 25 },
  );
}, 120_000);

test("an item that the experiment refuses is not sent, and counts as an item of its request that failed with 429", async () => {
  const config = readConfig({ OUTBOX_EXPERIMENT_ES_429_EVERY_N: "2" });
  await write(crypto.randomUUID(), [live(1n)]);
  await write(crypto.randomUUID(), [live(1n)]);
  await write(crypto.randomUUID(), [{ op: "delete", version: 1n, row: "missing" }]);

  await runBatch(db, openSearch(db, client, { config }), recorded);

  expect(engine.requests.map((r) => r.items.length)).toEqual([2]);
  expect(recorded.counted()).toMatchObject({
    "outbox_es_bulk_requests_total{result=partial}": 1,
    "outbox_es_bulk_items_total{op=index,result=success}": 1,
    "outbox_es_bulk_items_total{op=index,result=failed}": 1,
    "outbox_es_bulk_items_total{op=delete,result=success}": 1,
    "outbox_es_bulk_item_failures_total{op=index,failure_class=429}": 1,
    "outbox_failed_total{op=upsert,reason=es_429}": 1,
  });
});

import { afterAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { sql } from "drizzle-orm";
import { openEngine } from "../support/engine.ts";
import { until } from "../support/until.ts";
import { judge } from "./oracle.ts";
import { asked, documentId, entityId, openScene, readMetric, type Worker } from "./scene.ts";
import { openSluice } from "./sluice.ts";

const pauses = asked("WORDLOOM_TEST_PAUSES", 6);
const perPause = 60;

const engine = await openEngine();
const scene = await openScene(engine.url);
/** One before each worker. */
const sluices = { zombie: openSluice(engine.url), rescuer: openSluice(engine.url) };
afterAll(async () => {
  await Promise.all([sluices.zombie.close(), sluices.rescuer.close()]);
  await engine.close();
}, 60_000);

/** Stops a process, or lets it go on, and waits until it does. */
async function turn(worker: Worker, signal: "SIGSTOP" | "SIGCONT"): Promise<void> {
  worker.kill(signal);
  const state = () => /\) (\S)/.exec(readFileSync(`/proc/${worker.pid}/stat`, "utf8"))?.[1];
  await until(`${worker.id} to take ${signal}`, () => (state() === "T") === (signal === "SIGSTOP"), 10_000);
}

const drained = () => until("every event to be done", async () => (await scene.waiting()) === 0, 60_000);

async function holds(worker: Worker): Promise<boolean> {
  const rows = await scene.db.execute(
    sql`select from search_outbox_events_live where status = 'processing' and owner = ${worker.id} limit 1`,
  );
  return rows.length > 0;
}

type Document = { readonly _id: string; readonly found?: boolean; readonly _version?: number };

/** Looks at documents over and over. Tells at the end which of them went back to an older version, or came back after they were gone. */
function watch(entities: readonly number[]): AsyncDisposable & { readonly stop: () => Promise<string[]> } {
  const highest = new Map<string, number>();
  const gone = new Set<string>();
  const faults: string[] = [];
  const stopped = new AbortController();
  const look = async () => {
    const { docs } = await scene.client.mget({ index: scene.index, ids: entities.map(documentId), _source: false });
    for (const { _id: id, found = false, _version: version = 0 } of docs as Document[]) {
      const before = highest.get(id) ?? 0;
      if (!found) {
        if (before > 0) gone.add(id);
      } else if (gone.has(id)) faults.push(`${id} came back with version ${version}`);
      else if (version < before) faults.push(`${id} went from version ${before} to ${version}`);
      else highest.set(id, version);
    }
  };
  const watching = (async () => {
    while (!stopped.signal.aborted) await look();
    await look();
  })();
  const stop = async () => {
    stopped.abort();
    await watching;
    return faults;
  };
  return { stop, [Symbol.asyncDispose]: async () => void (await stop()) };
}

/** Every row of the queue, but for what the renewal of a lease changes. */
async function fingerprint(): Promise<string> {
  const [row] = await scene.db.execute<{ rows: string }>(sql`
    select md5(coalesce(string_agg((to_jsonb(e) - 'lease_until' - 'updated_at')::text, ',' order by id), '')) as rows
      from search_outbox_events e`);
  return row?.rows ?? "";
}

type Rescue = {
  /** Rows that were taken back. */
  readonly lost: number;
  /** Those of them that say it all: by whom, from whom, why, when. */
  readonly told: number;
  /** Those that the rescuer works on now. */
  readonly inHand: number;
  /** Rows that are the zombie's still. */
  readonly kept: number;
};

async function readRescue(entities: readonly number[]): Promise<Rescue> {
  const ids = `{${entities.map(entityId).join(",")}}`;
  const [row] = await scene.db.execute<Rescue>(sql`
    select count(*) filter (where reclaim_count = 1)::int as lost,
           count(*) filter (where reclaim_count = 1 and last_reclaimed_by = 'rescuer' and last_reclaimed_from = 'zombie'
                              and last_reclaimed_reason = 'lease_expired' and last_reclaimed_at > created_at)::int as told,
           count(*) filter (where reclaim_count = 1 and status = 'processing' and owner = 'rescuer')::int as "inHand",
           count(*) filter (where status = 'processing' and owner = 'zombie')::int as kept
      from search_outbox_events where entity_id = any(${ids}::uuid[])`);
  if (row === undefined) throw new Error("a count without a row");
  return row;
}

/** Rows that were refused to the zombie so far. */
let refused = 0;

/** Lets the zombie go on, and waits until `batch` more rows are refused to it. It touches neither them nor any other. */
async function wake(zombie: Worker, batch: number): Promise<void> {
  const skips = () => readMetric(zombie, "outbox_owner_mismatch_skips_total");
  const before = await fingerprint();
  await turn(zombie, "SIGCONT");
  refused += batch;
  await until("its settle to be refused", async () => (await skips()) >= refused, 20_000);
  expect(await skips()).toBe(refused);
  expect(await fingerprint()).toBe(before);
}

const ways = ["before its request", "with its request on the way", "and woken while its rows are worked on"] as const;

const title = `a worker that slept past its lease ${pauses} times touches nothing when it wakes up`;
test(
  title,
  async () => {
    const zombie = await scene.startWorker("zombie", {
      ELASTIC_URL: sluices.zombie.url,
      OUTBOX_BULK_SIZE: "40",
      OUTBOX_RECLAIM_INTERVAL_SECONDS: "0",
      // Time enough to be caught between claim and send.
      OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS: "0.2",
    });
    const rescuer = await scene.startWorker("rescuer", { ELASTIC_URL: sluices.rescuer.url });
    let late = 0;
    let again = 0;
    for (let pause = 0; pause < pauses; pause += 1) {
      const way = ways[pause % ways.length];
      const onTheWay = way === ways[1];
      const early = way === ways[2];
      const entities = Array.from({ length: perPause }, (_, i) => pause * perPause + i);
      const caught = () => (onTheWay ? sluices.zombie.held() > 0 : holds(zombie));
      for (;;) {
        sluices.zombie.shut();
        if (early) sluices.rescuer.shut();
        await turn(rescuer, "SIGSTOP");
        await scene.change(entities);
        const what = () => `the worker to be caught ${way}; it said last:\n${zombie.lines.slice(-20).join("\n")}`;
        await until(what, async () => (await caught()) || (await holds(rescuer)), 20_000);
        if (await caught()) break;
        // The rescuer had sent its last claim before it was stopped, and Postgres came to it after the change.
        await turn(rescuer, "SIGCONT");
        await Promise.all([sluices.zombie.open(), sluices.rescuer.open()]);
        await drained();
        again += 1;
      }
      await using watching = watch(entities);
      await turn(zombie, "SIGSTOP");
      await turn(rescuer, "SIGCONT");

      if (early) {
        const taken = async () => {
          const { lost, inHand, kept } = await readRescue(entities);
          return kept === 0 && lost > 0 && inHand === lost;
        };
        await until("the rescuer to hold the whole batch", taken, 20_000);
        await wake(zombie, (await readRescue(entities)).lost);
        await sluices.rescuer.open();
        await sluices.zombie.open();
      }
      await drained();
      // What the zombie holds is old news now; every fifth entity is gone for good.
      await scene.change(entities, (n) => n % 5 === 0);
      await drained();
      const { lost, told } = await readRescue(entities);
      expect(lost).toBeGreaterThan(0);
      expect(told).toBe(lost);
      if (!early) {
        // The request of the dead lease arrives after everything, and the engine refuses it by its versions.
        const statuses = await sluices.zombie.open();
        if (onTheWay) expect(statuses.length).toBeGreaterThan(0);
        expect(statuses.filter((status) => status !== 409)).toEqual([]);
        late += statuses.length;
        await wake(zombie, lost);
      }
      expect(await watching.stop()).toEqual([]);
    }
    expect(await judge(scene)).toEqual([]);
    process.stderr.write(
      `zombie storm: ${pauses} pauses, ${refused} rows refused, ${late} documents refused, ${again} caught the wrong worker\n`,
    );
  },
  60_000 + pauses * 15_000,
);

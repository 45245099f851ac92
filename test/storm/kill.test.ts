import { afterAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { openEngine } from "../support/engine.ts";
import { until } from "../support/until.ts";
import { judge, readRetries } from "./oracle.ts";
import { asked, openDice, openScene, type Worker } from "./scene.ts";

const kills = asked("WORDLOOM_TEST_KILLS", 25);
const events = asked("WORDLOOM_TEST_EVENTS", 5000);
const dice = openDice("kill storm");

const engine = await openEngine();
const scene = await openScene(engine.url);
afterAll(() => engine.close(), 60_000);

const entities = Math.ceil(events / 4);
const forgotten = 50;
/** Changes that each writer of each round makes. A third of the events is there before the first worker; some changes find their entity deleted. */
const perWriter = Math.ceil((events * 0.75) / kills / 2);
const someEntity = () => Math.floor(dice() * entities);
const pick = <T>(from: readonly T[]): T => {
  const one = from[Math.floor(dice() * from.length)];
  if (one === undefined) throw new Error("nothing to pick from");
  return one;
};

/** A writer that knows nothing of workers: short transactions, one in ten of their changes a delete. */
async function writeSome(): Promise<void> {
  for (let left = perWriter; left > 0; left -= 20)
    await scene.change(Array.from({ length: Math.min(20, left) }, someEntity), () => dice() < 0.1);
  await scene.appendLate([someEntity(), someEntity()], 2);
}

type Held = { id: string; claim_batch_id: string };

test(
  `of ${events} events none is lost and none is wrong, while ${kills} of three workers are killed`,
  async () => {
    const startedAt = performance.now();
    for (let n = 0; n < events / 3; n += 250)
      await scene.change(Array.from({ length: 250 }, (_, i) => (n + i) % entities));
    await scene.appendForgotten(Array.from({ length: forgotten }, (_, i) => entities + i));
    const names: string[] = [];
    const start = (place: string) => {
      const id = `${place}.${names.length}`;
      names.push(id);
      return scene.startWorker(id, { OUTBOX_BULK_SIZE: "50" });
    };
    const ready = new Map<string, Worker>();
    const failures: unknown[] = [];
    const enter = (place: string) =>
      start(place).then(
        (worker) => ready.set(place, worker),
        (error: unknown) => failures.push(error),
      );
    await Promise.all(["a", "b", "c"].map(enter));

    const owners = async () =>
      (
        await scene.db.execute<{ owner: string }>(
          sql`select distinct owner from search_outbox_events_live where status = 'processing'`,
        )
      ).map((row) => row.owner);
    const lost: (Held & { from: string })[] = [];
    let struck = 0;
    for (let kill = 0; kill < kills; kill += 1) {
      const writing = Promise.all([writeSome(), writeSome()]);
      await until("a worker to kill", () => ready.size > 0 || failures.length > 0);
      expect(failures).toEqual([]);
      let places = [...ready.keys()];
      if (dice() < 0.7) {
        // In the middle of a batch, wherever that is: while it is claimed, built, sent or settled.
        await until("a worker that holds a batch, or nothing left to hold", async () => {
          const holding = new Set(await owners());
          const busy = [...ready].filter(([, worker]) => holding.has(worker.id)).map(([place]) => place);
          if (busy.length > 0) places = busy;
          return busy.length > 0 || (await scene.waiting()) === 0;
        });
      } else {
        const left = dice() * perWriter * 2;
        await writing;
        await until("some of the round's events to be done", async () => (await scene.waiting()) <= left + 10);
        places = [...ready.keys()];
      }
      const place = pick(places);
      const victim = ready.get(place);
      if (victim === undefined) throw new Error("the victim is gone");
      ready.delete(place);
      victim.kill("SIGKILL");
      await victim.exited;
      const held = await scene.db.execute<Held>(
        sql`select id::text, claim_batch_id::text from search_outbox_events_live where status = 'processing' and owner = ${victim.id}`,
      );
      if (held.length > 0) struck += 1;
      lost.push(...held.map((row) => ({ ...row, from: victim.id })));
      void enter(place);
      await writing;
    }
    await until("every event to be done", async () => failures.length > 0 || (await scene.waiting()) === 0, 120_000);
    expect(failures).toEqual([]);
    const seconds = (performance.now() - startedAt) / 1000;
    expect(await judge(scene)).toEqual([]);
    expect(scene.appended()).toBeGreaterThanOrEqual(events);

    // What a dead worker held was taken back, or its own last settle was on its way already.
    const ids = `{${lost.map((row) => row.id).join(",")}}`;
    const rows = await scene.db.execute<
      Held & { owner: string; reclaim_count: number; from: string | null; why: string | null }
    >(sql`
    select id::text, claim_batch_id::text, owner, reclaim_count, last_reclaimed_from as from, last_reclaimed_reason as why
      from search_outbox_events where id = any(${ids}::bigint[])`);
    const after = new Map(rows.map((row) => [row.id, row]));
    const untold = lost.filter((one) => {
      const row = after.get(one.id);
      if (row?.claim_batch_id === one.claim_batch_id && row.owner === one.from) return false;
      return (
        row === undefined || row.reclaim_count === 0 || row.why !== "lease_expired" || !names.includes(row.from ?? "")
      );
    });
    expect(untold).toEqual([]);
    const reclaimed = rows.filter((row) => row.reclaim_count > 0).length;
    process.stderr.write(
      `kill storm: ${kills} kills, ${struck} of them in a batch (${lost.length} rows held, ${reclaimed} reclaimed), ${scene.appended()} events, retries ${JSON.stringify(await readRetries(scene))}, ${seconds.toFixed(1)} s\n`,
    );
    // A storm that hits nobody shows nothing.
    expect(struck).toBeGreaterThanOrEqual(kills / 4);
    expect(reclaimed).toBeGreaterThan(0);
  },
  60_000 + kills * 10_000,
);

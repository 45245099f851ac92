import { afterAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { openEngine } from "../support/engine.ts";
import { until } from "../support/until.ts";
import { judge, readRetries } from "./oracle.ts";
import { asked, openDice, openScene } from "./scene.ts";

const restarts = asked("WORDLOOM_TEST_RESTARTS", 5);
const dice = openDice("rolling restarts");

const engine = await openEngine();
const scene = await openScene(engine.url);
afterAll(() => engine.close(), 60_000);

const holding = async (owner: string) =>
  (
    await scene.db.execute(
      sql`select from search_outbox_events_live where status = 'processing' and owner = ${owner} limit 1`,
    )
  ).length > 0;

test(
  `${restarts} rolling restarts under load: each ends with 0, leaves no lease behind and wastes no attempt`,
  async () => {
    const names: string[] = [];
    const start = () => {
      names.push(`w${names.length}`);
      return scene.startWorker(`w${names.length - 1}`, {
        // Long, so that a lease that is left behind is seen, and small batches with a wait before each, so that a drain has something to give back.
        OUTBOX_LEASE_SECONDS: "60",
        OUTBOX_BULK_SIZE: "20",
        OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS: "0.03",
      });
    };
    let [leaving, staying] = await Promise.all([start(), start()]);
    let released = 0;
    for (let restart = 0; restart < restarts; restart += 1) {
      const arriving = start();
      for (let n = 0; n < 10; n += 1)
        await scene.change(
          Array.from({ length: 40 }, () => Math.floor(dice() * 2000)),
          () => dice() < 0.05,
        );
      const owner = leaving.id;
      await until("it to hold a batch", () => holding(owner), 20_000);
      leaving.kill("SIGTERM");
      expect(await leaving.exited).toBe(0);
      expect(await holding(owner)).toBe(false);
      released += leaving.lines.filter((line) => line.includes("released")).length;
      [leaving, staying] = [staying, await arriving];
    }
    await until("every event to be done", async () => (await scene.waiting()) === 0, 60_000);
    expect(await judge(scene)).toEqual([]);
    const [row] = await scene.db.execute<{ reclaimed: number; more: number }>(sql`
    select count(*) filter (where reclaim_count > 0)::int as reclaimed, count(*) filter (where attempts > 1)::int as more from search_outbox_events`);
    expect(row).toEqual({ reclaimed: 0, more: 0 });
    expect(await readRetries(scene)).toEqual({});
    // Something was given back, or it would have shown nothing.
    expect(released).toBeGreaterThan(0);
  },
  60_000 + restarts * 15_000,
);

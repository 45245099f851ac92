import { sql } from "drizzle-orm";
import pino from "pino";
import { readConfig } from "../../src/config.ts";
import type { ClaimedEvent, Decision } from "../../src/events.ts";
import { queues } from "../../src/outbox/queue.ts";
import { openWakeUps } from "../../src/outbox/wake.ts";
import { watchHealth } from "../../src/projection/health.ts";
import type { Projection } from "../../src/projection/projection.ts";
import { runWorker } from "../../src/projection/worker.ts";
import { workerOptions } from "../../src/projection/worker-options.ts";
import { openMetrics } from "../../src/telemetry/metrics.ts";
import { openTracing } from "../../src/telemetry/tracing.ts";
import { workerSignals } from "../../src/telemetry/worker-signals.ts";
import { until } from "../support/until.ts";
import { median } from "./machine.ts";
import { empty, report, startStore } from "./stack.ts";

/**
 * The queue without an engine: claim + settle of rows by the real worker loop against a target that says yes at once, beside graphile-worker and pg-boss on the same
 * Postgres; and again while another transaction pins xmin. `queue.ts` runs each side in turn, `BENCH_ROUNDS` times.
 */
const count = Number(process.env["BENCH_EVENTS"] ?? 1_000_000);
const rounds = Number(process.env["BENCH_ROUNDS"] ?? 1);
const store = await startStore();
const database = store.open();
const peerUrl = store.url.replace(
  /^postgres:\/\/\/(\w+)\?host=([^&]+).*$/,
  (_, name: string, host: string) => `postgresql://postgres@/${name}?host=${decodeURIComponent(host)}`,
);

const nullProjection: Projection = {
  queue: queues.search,
  gatherMs: 2,
  prepare: (lease) =>
    Promise.resolve({
      send: () => {
        const done = (e: ClaimedEvent): [bigint, Decision] => [
          e.id,
          { outcome: { kind: "done", result: "applied", sent: true } },
        ];
        return Promise.resolve({ decisions: new Map(lease.events.map(done)), health: { kind: "well" } });
      },
    }),
};

async function wordloom(batch: number, pinned: boolean): Promise<number> {
  await empty(database.db);
  await database.db.execute(
    sql`insert into search_outbox_events (entity_type, entity_id, op, event_version) select 'block', gen_random_uuid(), 'upsert', 1 from generate_series(1, ${count}::int)`,
  );
  await database.db.execute(sql`vacuum analyze search_outbox_events_live`);
  const config = readConfig({ WORDLOOM_ENV: "test", OUTBOX_BULK_SIZE: String(batch), OUTBOX_CONCURRENCY: "2" });
  const metrics = openMetrics("worker");
  const sinks = {
    log: pino({ level: "fatal" }),
    metrics,
    tracing: openTracing(config, "search", "bench", () => undefined),
  };
  const signals = workerSignals(sinks, {
    projection: "search",
    workerId: "bench",
    esIndex: null,
    projectionVersion: 1,
  });
  const health = watchHealth(
    database.db,
    {
      projection: "bench",
      workerId: "bench",
      maxSilenceMs: 10_000,
      pingIntervalMs: 5000,
      pingTimeoutMs: 5000,
      failsBeforeDraining: 3,
      pingTarget: null,
    },
    signals,
  );
  const stop = new AbortController();
  const work = async () => {
    const startedAt = performance.now();
    const run = runWorker(
      {
        db: database.db,
        projection: nullProjection,
        wakeUps: openWakeUps(database),
        options: workerOptions(config, "bench"),
        health,
        signals,
      },
      stop.signal,
    );
    const processed = async () =>
      Number(/^outbox_processed_total\{.*op="upsert"\} (\d+)/m.exec((await metrics.render(null)).body)?.[1] ?? 0);
    // Seldom: a page of metrics costs as much as half a batch.
    await until("the queue", async () => (await processed()) === count, 900_000, 100);
    const seconds = (performance.now() - startedAt) / 1000;
    stop.abort();
    await run;
    health.close();
    return count / seconds;
  };
  if (!pinned) return await work();
  const pin = store.open(1);
  try {
    return await pin.db.transaction(
      async (tx) => {
        await tx.execute(sql`select count(*) from search_index`);
        return await work();
      },
      { isolationLevel: "repeatable read" },
    );
  } finally {
    await pin.close();
  }
}

async function peer(script: string, ...args: string[]): Promise<number> {
  const child = Bun.spawn(["node", `${import.meta.dir}/peers/${script}`, peerUrl, ...args], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const output = await new Response(child.stdout).text();
  if ((await child.exited) !== 0) throw new Error(`${script} failed`);
  const line: unknown = JSON.parse(output.trim().split("\n").at(-1) ?? "");
  if (typeof line !== "object" || line === null || !("rate" in line) || typeof line.rate !== "number")
    throw new Error(`${script} printed no rate`);
  return line.rate;
}

/** The rival at its best: the settings that gave the highest rate on a tenth of the work. */
async function tuneGraphile(): Promise<[string, string]> {
  const tried = [];
  for (const concurrency of ["10", "24", "50"])
    for (const local of ["500", "2000"])
      tried.push({ concurrency, local, rate: await peer("graphile.mjs", String(count / 10), concurrency, local, "0") });
  const best = tried.toSorted((a, b) => b.rate - a.rate)[0];
  return best ? [best.concurrency, best.local] : ["24", "500"];
}

await Bun.spawn([process.execPath, "install", "--frozen-lockfile", "--cwd", `${import.meta.dir}/peers`], {
  stdout: "ignore",
  stderr: "ignore",
}).exited;
const [concurrency, local] = await tuneGraphile();
const runs: Record<"wordloom" | "graphile" | "pg_boss" | "wordloom_pinned" | "graphile_pinned", number>[] = [];
for (let round = 0; round < rounds; round += 1)
  runs.push({
    wordloom: await wordloom(500, false),
    graphile: await peer("graphile.mjs", String(count), concurrency, local, "0"),
    pg_boss: await peer("pg-boss.mjs", String(count / 5), "500", "2"),
    wordloom_pinned: await wordloom(500, true),
    graphile_pinned: await peer("graphile.mjs", String(count / 10), concurrency, local, "0", "pin"),
  });
const of = (key: keyof (typeof runs)[number]) => median(runs.map((r) => r[key]));
await report("queue", {
  events: count,
  rounds,
  graphile_tuned: { concurrency, local_queue: local },
  ratio_to_graphile: of("wordloom") / of("graphile"),
  ratio_to_pg_boss: of("wordloom") / of("pg_boss"),
  ratio_pinned_to_unpinned: of("wordloom_pinned") / of("wordloom"),
  runs,
});
await database.close();
await store.close();

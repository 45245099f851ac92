/**
 * Every alert seen ringing: real processes are given a real fault, a real Prometheus with the repository's rules watches them, and the fault is mended again. A minute of the rules
 * lasts two seconds here; nothing else of them changes. Takes four minutes (`npm run alerts`), prints a table and keeps it in test/bench/results/alerts.json.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { machine } from "../test/bench/machine.ts";
import { freePort } from "../test/support/cli.ts";
import { type Load, startLoad } from "../test/support/load.ts";
import { alerts, read } from "../test/support/monitoring.ts";
import { type Process, startCollect } from "../test/support/processes.ts";
import { configurePrometheus, type Prometheus, startPrometheus } from "../test/support/prometheus.ts";
import { scaleRules } from "../test/support/scaled-rules.ts";
import { openStage, type Stage } from "../test/support/stage.ts";
import { until } from "../test/support/until.ts";

const factor = 30;
const search = "search_index_to_elastic";
const chronicle = "chronicle_events_to_entries";

type Fault = {
  readonly what: string;
  /** What rings of it, and nothing else does: alert, severity, and of what. */
  readonly rings: readonly string[];
  /** Resolves when the fault is there. */
  readonly begin: () => Promise<void>;
  readonly end: () => Promise<void>;
};

type Ring = { alert: string; fault: string; firing_after_s: number; resolved_after_s: number };
const rings: Ring[] = [];

let stage: Stage;
let api: Process;
let worker: Process;
let collector: Process;
let load: Load;
let prometheus: Prometheus;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "wordloom-alerts-"));
  collector = await startCollect(freePort());
  stage = await openStage({
    WORDLOOM_TRACING_ENABLED: "1",
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    LOG_LEVEL: "warn",
    // Scaled as the rules are.
    OUTBOX_LEASE_SECONDS: String(30 / factor),
    OUTBOX_RECLAIM_INTERVAL_SECONDS: String(6 / factor),
  });
  [api, worker] = await Promise.all([stage.serve(), stage.work("w1")]);
  const ruleFiles = ["alerts.yml", "recording.yml"];
  for (const file of ruleFiles)
    await Bun.write(join(folder, file), scaleRules(read(`docker/prometheus/rules/${file}`), factor));
  const config = await configurePrometheus(
    folder,
    ruleFiles.map((file) => join(folder, file)),
    [
      { name: "api", address: new URL(api.url).host, env: "test", component: "api" },
      { name: "w1", address: stage.metricsOf("w1"), env: "test", component: "worker" },
      { name: "w2", address: stage.metricsOf("w2"), env: "test", component: "worker" },
    ],
  );
  prometheus = await startPrometheus(config, folder);
  load = startLoad(api.url, 20);
  await until(
    "all to be scraped under load",
    async () => (await prometheus.query("env_projection:outbox_lag_events:max_deriv10m")).length > 1,
  );
}, 120_000);

afterAll(async () => {
  await load?.stop();
  await prometheus?.stop();
  await stage?.close();
  await stopCollector();
  await rm(folder, { recursive: true, force: true });
  const line = (fault: string, alert: string, ...times: readonly string[]) =>
    [fault.padEnd(48), alert.padEnd(76), ...times.map((time) => time.padStart(9))].join(" ");
  const table = rings.map(({ fault, alert, firing_after_s, resolved_after_s }) =>
    line(fault, alert, firing_after_s.toFixed(1), resolved_after_s.toFixed(1)),
  );
  const head = line("fault", "alert", "rang", "ended");
  process.stdout.write(
    `${[head, ...table].join("\n")}\nseconds after the fault began and ended; a minute of the rules lasts ${60 / factor} s\n`,
  );
}, 60_000);

async function stopCollector(): Promise<void> {
  collector?.kill("SIGTERM");
  await collector?.exited;
}

/** The alerts in a state, each with what tells it from others of its name. */
async function ringing(state: "firing" | "pending|firing"): Promise<string[]> {
  const found = await prometheus.query(`ALERTS{alertstate=~"${state}"}`);
  return found.map(({ metric: { alertname, severity, projection, component, reason } }) =>
    [alertname, severity, projection ?? component, reason].filter((part) => part !== undefined).join(" "),
  );
}

/** Brings the fault about, waits until all that it should ring rings, mends it, and waits until nothing rings. Returns what rang. */
async function watch({ what, rings: expected, begin, end }: Fault): Promise<string[]> {
  let now = await ringing("pending|firing");
  const quiet = () => `${what}: ${now.join(", ")} not to ring`;
  const silent = async () => {
    now = await ringing("pending|firing");
    return now.length === 0;
  };
  await until(quiet, silent, 120_000, 200);
  const firedAt = new Map<string, number>();
  const resolvedAt = new Map<string, number>();
  const look = async () => {
    now = await ringing("firing");
    for (const alert of now) if (!firedAt.has(alert)) firedAt.set(alert, performance.now());
    for (const alert of firedAt.keys())
      if (now.includes(alert)) resolvedAt.delete(alert);
      else if (!resolvedAt.has(alert)) resolvedAt.set(alert, performance.now());
    return now;
  };
  await begin();
  const began = performance.now();
  const missing = () => expected.filter((alert) => !firedAt.has(alert));
  await until(
    () => `${what}: ${missing().join(", ")}`,
    async () => {
      await look();
      return missing().length === 0;
    },
    180_000,
    200,
  );
  await end();
  const ended = performance.now();
  await until(quiet, async () => (await look()).length === 0, 180_000, 200);
  const seconds = (ms = Number.NaN) => Math.round(ms / 100) / 10;
  for (const [alert, at] of firedAt)
    rings.push({
      alert,
      fault: what,
      firing_after_s: seconds(at - began),
      resolved_after_s: seconds((resolvedAt.get(alert) ?? Number.NaN) - ended),
    });
  return [...firedAt.keys()].toSorted();
}

const write = async (method: string, path: string, body: object) => {
  const answer = await fetch(`${api.url}/api/v1/${path}`, { method, body: JSON.stringify(body) });
  return (await answer.json()) as { readonly id: string };
};

/** An operator's session that locks what a worker has in hand, and ends when it is told to. */
async function lockRowsOf(owner: string): Promise<() => Promise<void>> {
  const [locked, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const session = stage.db.transaction(async (tx) => {
    // The product's own sessions are ended after a while; psql's are not.
    await tx.execute(sql`set local idle_in_transaction_session_timeout = 0`);
    const rows = await tx.execute(
      sql`select 1 from search_outbox_events_live where owner = ${owner} and status = 'processing' for update`,
    );
    if (rows.length === 0) throw new Error(`${owner} has nothing in hand`);
    locked.resolve();
    await release.promise;
  });
  await Promise.race([locked.promise, session]);
  return async () => {
    release.resolve();
    await session;
  };
}

let poisoned = "";
let unlock = () => Promise.resolve();

const faults: readonly Fault[] = [
  {
    what: "engine stopped under load",
    rings: [
      `OutboxBreakerOpen warning ${search}`,
      `OutboxLagGrowing warning ${search}`,
      `OutboxNoSuccess critical ${search}`,
      `OutboxOldestAgeTooHigh critical ${search}`,
      `OutboxOldestAgeTooHigh warning ${search}`,
    ],
    begin: () => stage.stopEngine(),
    end: () => stage.startEngine(),
  },
  {
    what: "a document that the engine refuses",
    rings: [`OutboxTerminalFailures warning ${search} es_4xx`],
    begin: async () => {
      const { id } = await write("POST", "tags", { name: "poison", color: "#FFFFFF" });
      poisoned = id;
      // No float of the mapping holds it.
      await stage.db.execute(sql`update search_index set rank_score = 1e300 where entity_id = ${id}::uuid`);
      await write("PATCH", `tags/${id}`, { name: "poison again" });
    },
    end: async () => {
      await stage.db.execute(sql`update search_index set rank_score = 0 where entity_id = ${poisoned}::uuid`);
      const replayed = await stage.run(["replay", "--by", "drill", "--reason", "rank mended"]);
      expect(replayed.code, replayed.err).toBe(0);
    },
  },
  {
    what: "an event whose chronicle entry was deleted",
    rings: [`OutboxTerminalFailures warning ${chronicle} deterministic_exception`],
    begin: async () => {
      await stage.db.execute(sql`
        insert into chronicle_outbox_events (entity_type, entity_id, op) values ('chronicle_event', gen_random_uuid(), 'upsert')`);
    },
    end: () => Promise.resolve(),
  },
  {
    what: "the worker killed (SIGKILL)",
    rings: [`OutboxWorkerGone critical ${chronicle}`, `OutboxWorkerGone critical ${search}`],
    begin: async () => {
      worker.kill("SIGKILL");
      await worker.exited;
    },
    end: async () => {
      worker = await stage.work("w1");
    },
  },
  {
    what: "a worker killed with rows in hand, rows locked",
    rings: [`OutboxOldestAgeTooHigh warning ${search}`, `OutboxStuckProcessing critical ${search}`],
    begin: async () => {
      const mortal = await stage.work("w2", { OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS: "3600" });
      unlock = await until("the worker that will die to have work in hand", () =>
        lockRowsOf("w2").catch(() => undefined),
      );
      mortal.kill("SIGKILL");
      await mortal.exited;
    },
    end: () => unlock(),
  },
  {
    what: "the collector stopped under load",
    rings: ["WordloomSpansDropped warning api export_failed", "WordloomSpansDropped warning worker export_failed"],
    begin: () => stopCollector(),
    end: async () => {
      collector = await startCollect(Number(new URL(collector.url).port));
    },
  },
];

test.each(faults)(
  "$what rings its alerts and no others, and they end with it",
  async (fault) => expect(await watch(fault)).toEqual([...fault.rings]),
  500_000,
);

test("every alert has rung, and that is kept", async () => {
  const rung = new Set(rings.map(({ alert }) => alert.split(" ").slice(0, 2).join(" ")));
  expect([...rung].toSorted()).toEqual(
    alerts.map(({ alert, labels }) => `${alert} ${labels?.["severity"]}`).toSorted(),
  );
  const answers = Object.fromEntries(load.answers);
  const result = { at: new Date().toISOString(), machine: machine(), scale: factor, answers, rings };
  await Bun.write(join(import.meta.dir, "../test/bench/results/alerts.json"), `${JSON.stringify(result, null, 2)}\n`);
});

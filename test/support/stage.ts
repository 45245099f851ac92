import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Db } from "../../src/db/client.ts";
import { startEngine } from "../../src/embedded/elasticsearch/engine.ts";
import { type Ended, freePort, wordloom } from "./cli.ts";
import { cloneDatabase } from "./postgres.ts";
import { type Process, startServe, startUp, startWork } from "./processes.ts";

type Environment = Readonly<Record<string, string>>;

/** The product as it runs in production: real processes, a database and an engine of their own. */
export type Stage = {
  readonly db: Db;
  /** The URLs of the database and the engine. */
  readonly url: string;
  readonly elastic: string;
  /** The embedded engine; when it is started again it is on the same port, with the same data. */
  readonly stopEngine: () => Promise<void>;
  readonly startEngine: () => Promise<void>;
  /** `wordloom serve`, ready. */
  readonly serve: (environment?: Environment) => Promise<Process>;
  /** `wordloom work --worker-id ID`, alive. One that is started again has the port of its metrics again. */
  readonly work: (id: string, environment?: Environment) => Promise<Process>;
  /** `wordloom up`, ready: API and worker in one process. */
  readonly up: (environment?: Environment) => Promise<Process>;
  /** Any other command of `wordloom`, to its end. */
  readonly run: (args: readonly string[], environment?: Environment) => Promise<Ended>;
  /** host:port of a worker's metrics, whether it runs or not. */
  readonly metricsOf: (id: string) => string;
  /** Ends all of it. */
  readonly close: () => Promise<void>;
};

/** Opens a stage whose processes all get `environment`. Whoever calls this closes it. */
export async function openStage(environment: Environment = {}): Promise<Stage> {
  const folder = await mkdtemp(join(tmpdir(), "wordloom-stage-"));
  const clone = await cloneDatabase();
  const database = clone.open();
  let engine = await startEngine({ dataDir: folder, port: 0 });
  const { url } = engine;
  const port = Number(new URL(url).port);
  const env = { DATABASE_URL: clone.url, ELASTIC_URL: url, ...environment };
  const running = new Set<Process>();
  const metricsPorts = new Map<string, string>();
  const portOf = (id: string) => {
    const known = metricsPorts.get(id) ?? String(freePort());
    metricsPorts.set(id, known);
    return known;
  };
  const keep = <P extends Process>(process: P): P => {
    running.add(process);
    void process.exited.then(() => running.delete(process));
    return process;
  };
  return {
    db: database.db,
    url: clone.url,
    elastic: url,
    stopEngine: () => engine.stop(),
    startEngine: async () => {
      engine = await startEngine({ dataDir: folder, port });
    },
    serve: async (own = {}) => keep(await startServe({ ...env, ...own })),
    work: async (id, own = {}) =>
      keep(await startWork({ ...env, ...own, OUTBOX_METRICS_PORT: portOf(id) }, ["--worker-id", id])),
    up: async (own = {}) => keep(await startUp({ ...env, ...own })),
    run: (args, given = {}) => wordloom(args, { WORDLOOM_ENV: "test", ...env, ...given }),
    metricsOf: (id) => `127.0.0.1:${portOf(id)}`,
    close: async () => {
      const ending = [...running];
      for (const process of ending) process.kill("SIGKILL");
      await Promise.all(ending.map(({ exited }) => exited));
      await database.close();
      await clone.drop();
      await engine.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

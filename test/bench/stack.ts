import { chmodSync, mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { parseDatabaseUrl } from "../../src/db/address.ts";
import { type Database, type Db, openDatabase } from "../../src/db/client.ts";
import { migrate } from "../../src/db/migrate.ts";
import { startEngine } from "../../src/embedded/elasticsearch/engine.ts";
import { type EmbeddedPostgres, startPostgres } from "../../src/embedded/postgres/start.ts";
import { type Process, startServe, startWork } from "../support/processes.ts";
import { answers, until } from "../support/until.ts";
import { machine } from "./machine.ts";

const root = join(import.meta.dir, "../..");

/** A Postgres of its own, durable as in production, with a fresh database. With `commitTimes` it knows when the writer of a row committed: pg_xact_commit_timestamp(xmin). */
export async function startStore({ commitTimes = false } = {}): Promise<{
  server: EmbeddedPostgres;
  url: string;
  open: (max?: number) => Database;
  close: () => Promise<void>;
}> {
  const folder = mkdtempSync(join(tmpdir(), "wordloom-bench-"));
  // As root, the server runs as another user, who has to get in.
  chmodSync(folder, 0o755);
  const start = () => startPostgres({ dataDir: join(folder, "postgres") });
  let server = await start();
  const openOn = (url: string, max: number) =>
    openDatabase(parseDatabaseUrl(url), { max, applicationName: "bench", statementTimeoutMs: 600_000, prepare: true });
  if (commitTimes) {
    const admin = openOn(server.databaseUrl("postgres"), 1);
    await admin.db.execute(sql`alter system set track_commit_timestamp = on`);
    await admin.close();
    await server.stop();
    server = await start();
  }
  const name = "wordloom_test_bench";
  await server.createDatabase(name);
  const url = server.databaseUrl(name);
  const open = (max = 8) => openOn(url, max);
  const database = open(1);
  await migrate(database.db, "test");
  await database.close();
  return {
    server,
    url,
    open,
    close: async () => {
      await server.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A real Elasticsearch: the one of BENCH_ELASTIC_URL (with its pid in BENCH_ELASTIC_PID for the CPU figures), else one started from ../shared. */
export async function startElasticsearch(
  port: number,
): Promise<{ url: string; pid: number; close: () => Promise<void> }> {
  const given = process.env["BENCH_ELASTIC_URL"];
  if (given !== undefined)
    return { url: given, pid: Number(process.env["BENCH_ELASTIC_PID"] ?? 0), close: () => Promise.resolve() };
  const data = mkdtempSync(join(tmpdir(), "wordloom-bench-es-"));
  const child = Bun.spawn(
    [join(root, "../shared/elasticsearch/run"), "--port", String(port), "--data", data, "--heap", "2g"],
    { stdout: "ignore", stderr: Bun.file(join(data, "log")) },
  );
  const url = `http://127.0.0.1:${port}`;
  await until("Elasticsearch", () => answers(`${url}/_cluster/health`), 120_000, 20);
  return {
    url,
    pid: child.pid,
    close: async () => {
      child.kill();
      await child.exited;
      await rm(data, { recursive: true, force: true });
    },
  };
}

type Environment = Readonly<Record<string, string>>;

/** A process that ends when it is told to, and whose last words are told when it ends otherwise. */
function attend<P extends Process>(child: P): P & { readonly stop: () => Promise<void> } {
  const ended = child.exited.then((code) => {
    if (code !== 0) process.stderr.write(`${child.lines.slice(-20).join("\n")}\n`);
  });
  return {
    ...child,
    stop: async () => {
      child.kill("SIGTERM");
      await ended;
    },
  };
}

/** A real worker process, alive. */
export async function startWorker(env: Environment, args: readonly string[] = []) {
  const worker = attend(await startWork({ LOG_LEVEL: "warn", ...env }, args));
  const metrics = async () => await (await fetch(worker.metricsUrl)).text();
  return {
    ...worker,
    metrics,
    // Asked of the worker: counting rows every few milliseconds would cost Postgres more than the work does.
    processed: async () => {
      const page = await metrics();
      return Array.from(page.matchAll(/^outbox_processed_total\{.*\} (\d+)$/gm), ([, n]) => Number(n)).reduce(
        (a, b) => a + b,
        0,
      );
    },
  };
}

/** A real API process, ready. */
export const startApi = async (env: Environment) => attend(await startServe({ LOG_LEVEL: "warn", ...env }));

/** The embedded engine, in this process's own worker thread. */
export async function startEmbeddedEngine(): Promise<{ url: string; pid: number; close: () => Promise<void> }> {
  const dataDir = mkdtempSync(join(tmpdir(), "wordloom-bench-engine-"));
  const engine = await startEngine({ dataDir, port: 0 });
  return {
    url: engine.url,
    pid: 0,
    close: async () => {
      await engine.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** Documents of about 400 bytes, their search_index rows and one pending event each, without the API, but with ids as it makes them (UUIDv7). */
export async function fill(db: Db, count: number): Promise<void> {
  await db.execute(sql`
    with made as (
      insert into search_index (entity_type, entity_id, library_id, book_id, title, text, snippet, event_version)
      select 'block', uuidv7(), '00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000002', '',
             'Paragraph ' || i || ': ' || repeat(md5(i::text) || ' words that people write ', 3), 'Paragraph ' || i, 1
        from generate_series(1, ${count}::int) i
      returning entity_id)
    insert into search_outbox_events (entity_type, entity_id, op, event_version) select 'block', entity_id, 'upsert', 1 from made`);
  await db.execute(sql`vacuum analyze search_outbox_events_live`);
  await db.execute(sql`vacuum analyze search_index`);
}

/** Forgets everything, so that the next run starts as the first did. */
export async function empty(db: Db): Promise<void> {
  await db.execute(sql`truncate search_outbox_events, chronicle_outbox_events, outbox_leases, search_index`);
}

/** Keeps the raw figures under test/bench/results and prints them. */
export async function report(name: string, figures: Record<string, unknown>): Promise<void> {
  const result = { bench: name, at: new Date().toISOString(), machine: machine(), ...figures };
  await Bun.write(join(import.meta.dir, "results", `${name}.json`), `${JSON.stringify(result, null, 2)}\n`);
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import postgres from "postgres";
import { PostgresStartError } from "../../src/embedded/postgres/failure.ts";
import { keepPostgres } from "../../src/embedded/postgres/keep.ts";
import { type EmbeddedPostgres, startPostgres } from "../../src/embedded/postgres/start.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(60_000);
const asRoot = process.getuid?.() === 0;
const home = await mkdtemp(join(tmpdir(), "wordloom-embedded-"));
await chmod(home, 0o755);
afterAll(() => rm(home, { recursive: true, force: true }));

/** The servers that a test started; they end with it, whatever it found. */
async function withServers(body: (start: (dataDir: string) => Promise<EmbeddedPostgres>) => Promise<void>) {
  const started: EmbeddedPostgres[] = [];
  try {
    await body(async (dataDir) => {
      const server = await startPostgres({ dataDir });
      started.push(server);
      return server;
    });
  } finally {
    for (const server of started) await server.stop();
  }
}

async function query(
  server: Pick<EmbeddedPostgres, "connection">,
  text: string,
  database = "postgres",
): Promise<unknown[]> {
  const sql = postgres({ ...server.connection, database, max: 1, onnotice: () => {} });
  try {
    return [...(await sql.unsafe(text).values())].flat();
  } finally {
    await sql.end({ timeout: 2 });
  }
}

const gone = (pid: number) => !processState(pid) || processState(pid) === "Z";
function processState(pid: number): string | undefined {
  const status = Bun.spawnSync(["cat", `/proc/${pid}/status`]).stdout.toString();
  return /^State:\s+(\w)/m.exec(status)?.[1];
}

async function failure(dataDir: string): Promise<PostgresStartError> {
  const error: unknown = await startPostgres({ dataDir, timeoutMs: 20_000 }).then(
    (server) => server.stop(),
    (reason: unknown) => reason,
  );
  if (!(error instanceof PostgresStartError)) throw new Error("expected a PostgresStartError", { cause: error });
  return error;
}

test("a first start makes a cluster, and what was committed survives a restart", async () => {
  const dataDir = join(home, "restart");
  await withServers(async (start) => {
    const began = performance.now();
    const first = await start(dataDir);
    const firstMs = performance.now() - began;
    expect(first.adopted).toBe(false);
    expect(await first.createDatabase("kept")).toBe(true);
    expect(await first.createDatabase("kept")).toBe(false);
    await query(first, "create table t as select 'here' as word", "kept");
    await first.stop();
    expect(gone(first.pid)).toBe(true);

    const again = performance.now();
    const second = await start(dataDir);
    process.stdout.write(`first start ${firstMs.toFixed(0)} ms, later ${(performance.now() - again).toFixed(0)} ms\n`);
    expect(second.adopted).toBe(false);
    expect(await query(second, "select word from t", "kept")).toEqual(["here"]);
  });
});

test("the cluster is UTF-8 in the builtin locale, syncs to disk, and has the extensions that Wordloom uses", async () => {
  await withServers(async (start) => {
    const server = await start(join(home, "restart"));
    await server.createDatabase("kept");
    for (const name of ["pg_trgm", "btree_gin", "unaccent", "pg_stat_statements"])
      await query(server, `create extension if not exists ${name}`, "kept");
    expect(
      await query(
        server,
        `select pg_encoding_to_char(encoding), datlocprovider, datlocale, current_setting('fsync'), current_setting('listen_addresses'),
           to_tsvector('english', 'running dogs')::text, unaccent('é'), lower('ÄÖ'), '2026-07-01T00:00Z'::timestamptz at time zone 'Europe/Zurich' = '2026-07-01T02:00'
         from pg_database where datname = current_database()`,
        "kept",
      ),
    ).toEqual(["UTF8", "b", "C.UTF-8", "on", "", "'dog':2 'run':1", "e", "äö", true]);
  });
});

test("a second start adopts the running server, which ends with the last that leaves it", async () => {
  await withServers(async (start) => {
    const first = await start(join(home, "shared"));
    const second = await start(join(home, "shared"));
    expect([first.adopted, second.adopted]).toEqual([false, true]);
    expect(second.pid).toBe(first.pid);

    await first.stop();
    expect(await query(second, "select 1")).toEqual([1]);
    await second.stop();
    expect(gone(second.pid)).toBe(true);
  });
});

test("of many starts at once one makes the server and the others adopt it", async () => {
  await withServers(async (start) => {
    const all = await Promise.all(Array.from({ length: 5 }, () => start(join(home, "race"))));
    expect(new Set(all.map(({ pid }) => pid)).size).toBe(1);
    expect(all.filter(({ adopted }) => !adopted)).toHaveLength(1);
  });
});

test("who starts while the last one leaves gets a server that works", async () => {
  const dataDir = join(home, "race");
  const comeAndGo = async () => {
    for (let turn = 0; turn < 6; turn++) {
      const server = await startPostgres({ dataDir });
      expect(await query(server, "select 1")).toEqual([1]);
      await server.stop();
    }
  };
  await Promise.all([comeAndGo(), comeAndGo(), comeAndGo()]);
});

test("a server whose parent was killed is adopted", async () => {
  const dataDir = join(home, "orphan");
  const module = join(import.meta.dir, "../../src/embedded/postgres/start.ts");
  const code = `const { startPostgres } = await import(${JSON.stringify(module)});
    const server = await startPostgres({ dataDir: ${JSON.stringify(dataDir)} });
    await server.createDatabase("kept");
    process.stdout.write(String(server.pid) + "\\n");`;
  const parent = Bun.spawn([process.execPath, "-e", code], { stdout: "pipe", stderr: "inherit" });
  const { value } = await parent.stdout.getReader().read();
  const pid = Number(new TextDecoder().decode(value));
  parent.kill("SIGKILL");
  await parent.exited;

  await withServers(async (start) => {
    const server = await start(dataDir);
    expect([server.adopted, server.pid]).toEqual([true, pid]);
    expect(await server.createDatabase("kept")).toBe(false);
  });
  expect(gone(pid)).toBe(true);
});

test("a killed server is started anew over its stale postmaster.pid, and nothing committed is lost", async () => {
  await withServers(async (start) => {
    const dataDir = join(home, "killed");
    const first = await start(dataDir);
    await query(first, "create table t as select 7 as n");
    process.kill(first.pid, "SIGKILL");

    const second = await start(dataDir);
    expect(second.adopted).toBe(false);
    expect(await query(second, "select n from t")).toEqual([7]);
  });
});

test("a server that is killed while processes use it is started again by one of them, and ends with the last", async () => {
  const dataDir = join(home, "kept");
  const pidOf = async () => Number((await readFile(join(dataDir, "data/postmaster.pid"), "utf8")).split("\n")[0]);
  const keepers = [await keepPostgres({ dataDir }), await keepPostgres({ dataDir })] as const;
  const [first, second] = keepers;
  const ask = (text: string) => query({ connection: { path: first.socketPath, user: "postgres" } }, text);
  const before = await pidOf();
  try {
    await ask("create table t as select 7 as n");
    process.kill(before, "SIGKILL");
    const found = await until("it answers", () => ask("select n from t").catch(() => undefined), 20_000);
    expect(found).toEqual([7]);
    const after = await pidOf();
    expect(after).not.toBe(before);
    await until("both are members", async () => {
      const [members] = await ask(
        "select count(*)::int from pg_locks where locktype = 'advisory' and mode = 'ShareLock'",
      );
      return members === 2;
    });
    await first.stop();
    expect(await ask("select n from t")).toEqual([7]);
    await second.stop();
    expect(gone(after)).toBe(true);
  } finally {
    for (const keeper of keepers) await keeper.stop();
  }
});

test("a server that has lost one of its processes is still that of all who use it, and does not end with the first that leaves", async () => {
  const dataDir = join(home, "backend");
  const [one, other] = [await keepPostgres({ dataDir }), await keepPostgres({ dataDir })];
  const open = () =>
    postgres({ path: other.socketPath, user: "postgres", max: 1, fetch_types: false, onnotice: () => {} });
  const [sql, victim] = [open(), open()];
  try {
    /** Members that hold their lock, on connections that were made since `then`. */
    const members = async (then = "-infinity") =>
      Number(
        (
          await sql`
            select count(*) as n from pg_locks l join pg_stat_activity a using (pid)
             where l.locktype = 'advisory' and l.granted and a.backend_start > ${then}::text::timestamptz`
        )[0]?.["n"],
      );
    expect(await members()).toBe(2);
    const startedAt = async () => String((await sql`select pg_postmaster_start_time()::text as at`)[0]?.["at"]);
    const before = await startedAt();
    const [backend] = await victim<{ pid: number; at: string }[]>`select pg_backend_pid() as pid, now()::text as at`;
    process.kill(backend?.pid ?? 0, "SIGKILL");
    await until("both are its members again", () =>
      members(backend?.at).then(
        (n) => n === 2,
        () => false,
      ),
    );
    await one.stop();
    expect([await startedAt(), await members()]).toEqual([before, 1]);
  } finally {
    await Promise.all([sql, victim].map((client) => client.end({ timeout: 0 })));
    await Promise.all([one.stop(), other.stop()]);
  }
});

test("a stale postmaster.pid whose number now belongs to another process does not stop the start", async () => {
  await withServers(async (start) => {
    const dataDir = join(home, "reused");
    const first = await start(dataDir);
    const pidFile = join(dataDir, "data/postmaster.pid");
    const lines = (await readFile(pidFile, "utf8")).split("\n");
    const { uid, gid } = await Bun.file(pidFile).stat();
    await first.stop();

    const stranger = Bun.spawn(["sleep", "60"], asRoot ? { uid, gid } : {});
    try {
      await writeFile(pidFile, [stranger.pid, ...lines.slice(1)].join("\n"), { mode: 0o600 });
      await chown(pidFile, uid, gid);
      const second = await start(dataDir);
      expect(second.adopted).toBe(false);
      expect(stranger.exitCode).toBe(null);
    } finally {
      stranger.kill();
    }
  });
});

test("the server has a session of its own, so that Ctrl-C reaches only its parent", async () => {
  await withServers(async (start) => {
    const { pid } = await start(join(home, "restart"));
    const [, session] = /\) \S+ \d+ \d+ (\d+)/.exec(await readFile(`/proc/${pid}/stat`, "utf8")) ?? [];
    expect(Number(session)).toBe(pid);
  });
});

test("a data folder with a long name gets a socket that still fits into 107 bytes", async () => {
  await withServers(async (start) => {
    const server = await start(join(home, "x".repeat(120)));
    expect(Buffer.byteLength(server.socketPath)).toBeLessThanOrEqual(107);
    expect(await query(server, "select 1")).toEqual([1]);
    await server.stop();
    await rm(dirname(server.socketPath), { recursive: true });
  });
});

test.each(["", "/below"])("a file where the folder should be is named (%p)", async (below) => {
  const file = join(home, "file");
  await writeFile(file, "kept");
  expect((await failure(`${file}${below}`)).message).toStartWith(
    `${file} is a file, not a folder. Set WORDLOOM_DATA_DIR`,
  );
  expect(await readFile(file, "utf8")).toBe("kept");
});

test("a folder that the server's user cannot use is named, with the variable that chooses another", async () => {
  const closed = join(home, "closed");
  await mkdir(closed);
  await chmod(closed, asRoot ? 0o700 : 0o500);
  const error = await failure(join(closed, "postgres"));
  expect(error.reason).toBe("permission");
  expect(error.message).toContain(`cannot use ${closed} (`);
  expect(error.message).toContain("WORDLOOM_DATA_DIR");
});

test("a cluster of another major version is refused and left alone", async () => {
  const data = join(home, "major/data");
  await mkdir(data, { recursive: true });
  await writeFile(join(data, "PG_VERSION"), "17\n");
  const error = await failure(join(home, "major"));
  expect(error.reason).toBe("other_major");
  expect(error.message).toContain("PostgreSQL 17");
  expect(await readFile(join(data, "PG_VERSION"), "utf8")).toBe("17\n");
});

test("a server that ends at start is reported with the last lines of its log", async () => {
  const dataDir = join(home, "broken");
  await withServers(async (start) => {
    await start(dataDir);
  });
  await rm(join(dataDir, "data/global/pg_control"));
  const error = await failure(dataDir);
  expect(error.reason).toBe("server_exit");
  expect(error.message).toContain("pg_control");
});

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { migrations } from "../../src/db/migrate.ts";
import { start, wordloom } from "../support/cli.ts";
import { cloneDatabase, testDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";

// Several processes start in each of these, two cores between them and all other tests.
setDefaultTimeout(120_000);
const testbed = await testDatabase();
const env = { WORDLOOM_ENV: "test", DATABASE_URL: testbed.url };
const folder = await mkdtemp(join(tmpdir(), "wordloom-cli-"));
// The embedded Postgres runs as another user where this is root.
await chmod(folder, 0o755);
afterAll(() => rm(folder, { recursive: true }));

const notes = async (name: string, files: Record<string, string | Uint8Array>) => {
  await Promise.all(Object.entries(files).map(([path, text]) => Bun.write(join(folder, name, path), text)));
  return join(folder, name);
};

test.each([
  ["nothing listens there", { DATABASE_URL: "postgresql://app:s3cret@127.0.0.1:1/wordloom" }, 4, "nothing answers for"],
  [
    "it is no URL of Postgres",
    { DATABASE_URL: "mysql://app:s3cret@db/wordloom" },
    2,
    "DATABASE_URL is not a Postgres URL",
  ],
  ["it names no database", { DATABASE_URL: "postgresql://app:s3cret@db" }, 2, "DATABASE_URL names no database"],
  ["the environment is unknown", { WORDLOOM_ENV: "staging" }, 5, "WORDLOOM_ENV names an unknown environment"],
  [
    "the environment wants another address",
    { WORDLOOM_ENV: "dev", DATABASE_URL: "postgresql://app:s3cret@db/wordloom_dev" },
    5,
    "[ENV_GUARD]",
  ],
  [
    "the database is a test database",
    { WORDLOOM_ENV: "prod", DATABASE_URL: "postgresql://app:s3cret@db/wordloom_test" },
    5,
    "[ENV_GUARD]",
  ],
])("a database that cannot be used is one line without secrets: %s", async (_, wrong, exitCode, message) => {
  const { code, out, err } = await wordloom(["migrate"], wrong);
  expect({ code, out }).toEqual({ code: exitCode, out: "" });
  expect(err).toStartWith("wordloom: ");
  expect(err).toContain(message);
  expect(err).not.toContain("s3cret");
  expect(err.trim().split("\n")).toHaveLength(1);
});

test("a server that is no Postgres is told so with exit code 4", async () => {
  using web = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("a page") });
  const { code, err } = await wordloom(["migrate"], {
    DATABASE_URL: `postgresql://app@127.0.0.1:${web.port}/wordloom`,
  });
  expect(code).toBe(4);
  expect(err).toContain("closed the connection; make sure Postgres is running there, or correct DATABASE_URL");
});

test("a database that does not exist is told so with exit code 4", async () => {
  const { code, err } = await wordloom(["migrate"], {
    ...env,
    DATABASE_URL: testbed.url.replace(testbed.name, "wordloom_test_none"),
  });
  expect(code).toBe(4);
  expect(err).toContain("does not exist; create it or correct DATABASE_URL");
});

test("the sentinel of another environment is a refusal, also for migrate", async () => {
  const foreign = await cloneDatabase();
  const database = foreign.open();
  await database.db.execute(sql`update environment_sentinel set env = 'prod'`);
  await database.close();
  for (const command of [["migrate"], ["import", ".", "--library", "x"]]) {
    const { code, err } = await wordloom(command, { ...env, DATABASE_URL: foreign.url });
    expect(code).toBe(5);
    expect(err).toContain("sentinel says prod, but WORDLOOM_ENV is test");
  }
  await foreign.drop();
});

test("migrate names what is missing, applies it, and has nothing to do the second time; until then others refuse", async () => {
  const fresh = await cloneDatabase();
  const database = fresh.open();
  await database.db.execute(sql`drop schema public cascade`);
  await database.db.execute(sql`create schema public`);
  await database.close();
  const there = { ...env, DATABASE_URL: fresh.url };
  const names = migrations.map((m) => m.name);

  const early = await wordloom(["import", await notes("early", { "a.md": "a" }), "--library", "x"], there);
  expect(early.code).toBe(5);
  expect(early.err).toContain("run `wordloom migrate`");

  const dry = await wordloom(["migrate", "--dry-run", "--json"], there);
  expect(JSON.parse(dry.out)).toEqual({ applied: [], pending: names });
  const first = await wordloom(["migrate"], there);
  expect(first.out.split("\n").slice(0, names.length)).toEqual(names.map((name) => `applied ${name}`));
  const second = await wordloom(["migrate", "--json"], there);
  expect(JSON.parse(second.out)).toEqual({ applied: [], pending: [] });
  await fresh.drop();
});

test("without DATABASE_URL the embedded Postgres is used, and ends with the command", async () => {
  const data = { WORDLOOM_DATA_DIR: join(folder, "data") };
  const migrated = await wordloom(["migrate", "--json"], data);
  expect(migrated).toMatchObject({ code: 0, err: "" });
  const again = await wordloom(["migrate", "--dry-run", "--json"], data);
  expect(JSON.parse(again.out)).toEqual({ applied: [], pending: [] });
  expect(await Bun.file(join(folder, "data/postgres/cluster/postmaster.pid")).exists()).toBe(false);
});

test("import tells what it did, on one line or as JSON, and nothing of a progress bar off a terminal", async () => {
  const dir = await notes("told", { "a.md": "# A\n\none\n", "b/c.md": "c" });
  const first = await wordloom(["import", dir, "--library", "Told"], env);
  expect(first).toMatchObject({ code: 0, err: "" });
  expect(first.out).toMatch(/^imported 2 files into "Told" in \d+\.\d s: 2 books created, 3 blocks created\n$/);
  const second = await wordloom(["import", dir, "--library", "Told", "--json"], env);
  expect(second).toMatchObject({ code: 0, err: "" });
  expect(JSON.parse(second.out)).toEqual({
    files: 2,
    books_created: 0,
    books_changed: 0,
    books_deleted: 0,
    blocks_created: 0,
    blocks_changed: 0,
    blocks_deleted: 0,
    unchanged: 2,
    failed: [],
    interrupted: false,
    seconds: expect.any(Number),
  });
});

test("import names the files that it leaves out and ends with exit code 1", async () => {
  const dir = await notes("broken", { "a.md": "a", "latin.md": new Uint8Array([0xe9]) });
  const { code, out, err } = await wordloom(["import", dir, "--library", "Broken"], env);
  expect(code).toBe(1);
  expect(out).toContain("1 book created");
  expect(err).toContain("1 file skipped\n  latin.md is not UTF-8");
});

/** Writes `count` files of ten paragraphs each and imports the first of them. `hold(n)` then lets an import come as far as file n and no further. */
async function stage(library: string, count: number) {
  const path = (n: number) => `${String(n).padStart(3, "0")}.md`;
  const texts = Array.from({ length: count }, (_, n) =>
    Array.from({ length: 10 }, (_unused, i) => `paragraph ${i} of ${n}`).join("\n\n"),
  );
  const dir = await notes(library, { [path(0)]: texts[0] ?? "" });
  const command = ["import", dir, "--library", library];
  await wordloom(command, env);
  await notes(library, Object.fromEntries(texts.map((text, n) => [path(n), text])));
  const database = testbed.open();
  const books = () =>
    database.db.execute<{ blocks: number }>(sql`
      select (select count(*)::int from blocks k where k.book_id = b.id) as blocks
        from books b join libraries l on l.id = b.library_id where l.name = ${library}`);
  const hold = async (n: number, work: (child: ReturnType<typeof start>) => void | Promise<void>) => {
    const child = start(command, env);
    await database.db
      .transaction(async (tx) => {
        // The same book in an open transaction: the import waits for what becomes of it.
        await tx.execute(sql`
          insert into books (id, bookshelf_id, library_id, title, source_path)
          select ${Bun.randomUUIDv7()}::uuid, bookshelf_id, library_id, '', ${path(n)} from books
           where source_path = ${path(0)} and library_id = (select id from libraries where name = ${library})`);
        await until("the import waits", async () => {
          const waiting = await database.db.execute(
            sql`select from pg_stat_activity where application_name = 'wordloom-import' and wait_event_type = 'Lock' and datname = current_database()`,
          );
          return waiting.length > 0;
        });
        await work(child);
        tx.rollback();
      })
      .catch(() => undefined);
    return child;
  };
  return { command, books, hold, close: () => database.close() };
}

test("an import that is killed leaves whole books, and the next one makes it complete", async () => {
  const { command, books, hold, close } = await stage("Killed", 60);
  for (const n of [7, 8, 30]) {
    await (await hold(n, (child) => child.kill("SIGKILL"))).exited;
    const made = await books();
    expect(made).toHaveLength(n);
    expect(new Set(made.map((b) => b.blocks))).toEqual(new Set([10]));
  }
  const last = await wordloom([...command, "--json"], env);
  expect(JSON.parse(last.out)).toMatchObject({ books_created: 30, unchanged: 30 });
  expect(await books()).toHaveLength(60);
  await close();
});

test("the first SIGINT lets an import finish the file in hand, and says how to go on", async () => {
  const { books, hold, close } = await stage("Stopped", 300);
  const child = await hold(5, (running) => running.kill("SIGINT"));
  expect(await child.exited).toBe(1);
  expect(await child.stderr.text()).toContain("stopped before the end; run it again to continue");
  const made = await books();
  expect(made.length).toBeLessThan(300);
  expect(new Set(made.map((b) => b.blocks))).toEqual(new Set([10]));
  await close();
});

test("the second signal leaves at once", async () => {
  const { hold, close } = await stage("Left", 10);
  const child = await hold(5, (running) => {
    running.kill("SIGTERM");
    running.kill("SIGINT");
  });
  expect(await child.exited).toBeOneOf([130, 143]);
  await close();
});

test("a Ctrl-C that comes twice in a moment, as under npm, is one", async () => {
  const { hold, close } = await stage("Echoed", 10);
  const child = await hold(5, async (running) => {
    // Apart: what comes while one is pending is one for the kernel too.
    for (let n = 0; n < 5; n += 1) {
      running.kill("SIGINT");
      await Bun.sleep(2);
    }
  });
  expect(await child.exited).toBe(1);
  expect(await child.stderr.text()).toContain("stopped before the end; run it again to continue");
  await close();
});

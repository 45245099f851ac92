import { afterAll } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { type DatabaseAddress, parseDatabaseUrl } from "../../src/db/address.ts";
import { type Database, type DbOptions, openDatabase } from "../../src/db/client.ts";
import { migrate, migrations } from "../../src/db/migrate.ts";
import { PostgresStartError } from "../../src/embedded/postgres/failure.ts";
import { prepareFolders } from "../../src/embedded/postgres/folders.ts";
import { readPostmaster } from "../../src/embedded/postgres/postmaster.ts";
import { type EmbeddedPostgres, startPostgres } from "../../src/embedded/postgres/start.ts";
import { until } from "./until.ts";

/** A migrated database of the environment "test" that belongs to one test file. */
export interface TestDatabase {
  readonly name: string;
  readonly url: string;
  readonly address: DatabaseAddress;
  /** Opens a pool on it; close it before `drop`. */
  open(options?: Partial<DbOptions>): Database;
  /** Drops it, whoever is still connected. Idempotent. */
  drop(): Promise<void>;
}

/**
 * A database for the calling test file, dropped when its tests are over:
 *
 *   const database = await testDatabase();
 */
export async function testDatabase(): Promise<TestDatabase> {
  const database = await cloneDatabase();
  afterAll(() => database.drop());
  return database;
}

/** The server of this run: the external one of WORDLOOM_TEST_DATABASE_URL, else the embedded one. */
interface Server {
  /** One connection: the advisory locks that mark databases as in use live on it. */
  readonly admin: postgres.Sql;
  readonly urlOf: (database: string) => string;
  readonly leave: () => Promise<void>;
}

let server: Promise<Server> | undefined;
let clones = 0;

/** Copies the migrated template (~0.1 s). Whoever calls this drops it; what a killed run leaves the next run removes. */
export async function cloneDatabase(): Promise<TestDatabase> {
  clones += 1;
  server ??= openServer();
  const { admin, urlOf } = await server;
  const name = `wordloom_test_${randomBytes(6).toString("hex")}`;
  await admin`select pg_advisory_lock(hashtext(${name}))`;
  await admin`create database ${admin(name)} template ${admin(template)}`;
  const url = urlOf(name);
  const address = parseDatabaseUrl(url);

  let dropping: Promise<void> | undefined;
  return {
    name,
    url,
    address,
    open: (options) =>
      openDatabase(address, { max: 4, applicationName: "test", statementTimeoutMs: 10_000, prepare: true, ...options }),
    drop() {
      dropping ??= (async () => {
        await admin`drop database ${admin(name)} with (force)`;
        clones -= 1;
        if (clones === 0) await leaveServer();
      })();
      return dropping;
    },
  };
}

/** A new set of migrations gets a new template. */
const template = `wordloom_template_${createHash("sha256")
  .update(migrations.map(({ name, hash }) => `${name} ${hash}`).join())
  .digest("hex")
  .slice(0, 12)}`;

async function openServer(): Promise<Server> {
  const external = process.env["WORDLOOM_TEST_DATABASE_URL"];
  const opened = external ? openExternal(external) : await openEmbedded();
  await removeLeaks(opened.admin);
  await makeTemplate(opened);
  return opened;
}

async function leaveServer(): Promise<void> {
  const leaving = await server;
  server = undefined;
  await leaving?.leave();
}

function openExternal(url: string): Server {
  const { host, port, socketPath, user, password, database } = parseDatabaseUrl(url);
  const admin = connect({
    ...(socketPath ? { path: socketPath } : { host, port }),
    ...(password ? { password } : {}),
    user,
    database,
  });
  return {
    admin,
    urlOf: (name) => url.replace(/^([^:]+:\/\/[^/]*\/)[^?]*/, (_, start: string) => `${start}${name}`),
    leave: () => admin.end({ timeout: 2 }),
  };
}

async function openEmbedded(): Promise<Server> {
  const root = join(import.meta.dir, "../..");
  const started = await joinHeld(join(root, ".cache/test-postgres")).catch((error: unknown) => {
    if (!(error instanceof PostgresStartError) || error.reason !== "permission") throw error;
    // A checkout below /root: the server, which is not root, cannot get there.
    return joinHeld(join(tmpdir(), `wordloom-test-${Bun.hash(root).toString(36)}`));
  });
  const admin = connect({ ...started.connection, database: "postgres" });
  return {
    admin,
    urlOf: (name) => started.databaseUrl(name),
    async leave() {
      await admin.end({ timeout: 2 });
      await started.stop();
    },
  };
}

/** Joins the server that postgres-holder.ts keeps, having it started when there is none. Never starts it here: it would end with this test file. */
async function joinHeld(dataDir: string): Promise<EmbeddedPostgres> {
  const { cluster } = (await prepareFolders(dataDir)).folders;
  const ready = async () => (await readPostmaster(cluster))?.ready === true;
  if (!(await ready())) {
    // The shell ends at once, so that the holder belongs to nobody. Of several only one starts the server.
    const holder = [process.execPath, join(import.meta.dir, "postgres-holder.ts"), dataDir];
    await Bun.spawn(["sh", "-c", 'setsid "$@" </dev/null >/dev/null 2>&1 &', "sh", ...holder]).exited;
    await until("the tests' Postgres", ready);
  }
  return await startPostgres({ dataDir, durability: "none" });
}

const connect = (options: postgres.Options<Record<string, never>>): postgres.Sql =>
  postgres({ ...options, max: 1, max_lifetime: null, onnotice: () => {} });

/** Drops the databases of runs that were killed: nobody holds their lock any more. */
async function removeLeaks(admin: postgres.Sql): Promise<void> {
  const left = await admin<{ name: string; unused: boolean }[]>`
    select datname as name, pg_try_advisory_lock(hashtext(datname)) as unused
    from pg_database where datname like 'wordloom\\_test\\_%'`;
  for (const { name, unused } of left) {
    if (!unused) continue;
    await admin`drop database if exists ${admin(name)} with (force)`;
    await admin`select pg_advisory_unlock(hashtext(${name}))`;
  }
}

/** Makes the template unless it is there. Files that run at the same time wait for the first. */
async function makeTemplate({ admin, urlOf }: Server): Promise<void> {
  await admin`select pg_advisory_lock(hashtext('wordloom_template'))`;
  try {
    const [made] = await admin`select from pg_database where datname = ${template}`;
    if (made) return;
    const draft = `${template}_draft`;
    await admin`drop database if exists ${admin(draft)} with (force)`;
    await admin`create database ${admin(draft)}`;
    const database = openDatabase(parseDatabaseUrl(urlOf(draft)), {
      max: 1,
      applicationName: "test template",
      statementTimeoutMs: 60_000,
      prepare: false,
    });
    await migrate(database.db, "test");
    await database.close();
    await admin`alter database ${admin(draft)} rename to ${admin(template)}`;
  } finally {
    await admin`select pg_advisory_unlock(hashtext('wordloom_template'))`;
  }
}

import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Account } from "./account.ts";
import { packed } from "./archives.ts";
import { explain, PostgresStartError, serverExit } from "./failure.ts";
import { type Folders, prepareFolders, socketIn } from "./folders.ts";
import { joinServer, type Membership } from "./membership.ts";
import { isPostmasterOf, readPostmaster } from "./postmaster.ts";
import { type Durability, removeOtherServers, type Server, shutDown, spawnServer } from "./server.ts";

export interface StartOptions {
  /** The folder that is this server's alone; it is made when missing. */
  readonly dataDir: string;
  /** "none" gives up crash safety for speed: for tests only. Ignored when a running server is adopted. */
  readonly durability?: Durability;
  /** How long a start may take, recovery after a crash included; default 120 s. */
  readonly timeoutMs?: number;
}

export interface EmbeddedPostgres {
  /** What postgres.js needs beside the name of a database (it does not read a socket from a URL). */
  readonly connection: { readonly path: string; readonly user: "postgres" };
  readonly socketPath: string;
  /** Whether the server was already running in the data folder. */
  readonly adopted: boolean;
  readonly pid: number;
  /** The version that this build carries, such as "18.4". */
  readonly version: string;
  readonly logPath: string;
  /** A URL for psql and other programs on libpq. */
  databaseUrl(database: string): string;
  /** Creates a database unless it exists; says whether it did. */
  createDatabase(name: string): Promise<boolean>;
  /** Whether the server is still there. */
  runs(): Promise<boolean>;
  /** Leaves the server, and shuts it down (at most 12 s) when no other process uses it. Idempotent. */
  stop(): Promise<void>;
}

/**
 * Starts the PostgreSQL that this build carries, on a unix socket only, or adopts the one that already runs in the
 * data folder (left by a killed process, or shared by several). It accepts connections when this returns.
 * Throws PostgresStartError.
 */
export async function startPostgres(options: StartOptions): Promise<EmbeddedPostgres> {
  requirePlatform();
  const { folders, account } = await prepareFolders(options.dataDir);
  const { membership, pid, started } = await reach(folders, account, options);
  const { socketPath } = membership;
  if (started) await removeOtherServers(folders.server);

  let stopping: Promise<void> | undefined;
  return {
    connection: { path: socketPath, user: "postgres" },
    socketPath,
    adopted: !started,
    pid,
    version: packed.version,
    logPath: folders.log,
    databaseUrl: (database) =>
      `postgres:///${encodeURIComponent(database)}?host=${encodeURIComponent(dirname(socketPath))}&user=postgres`,
    createDatabase: (name) => membership.createDatabase(name),
    runs: () => isPostmasterOf(folders.cluster, pid),
    stop() {
      stopping ??= leave({ membership, pid, started }, folders.cluster);
      return stopping;
    },
  };
}

function requirePlatform(): void {
  const platform = `${process.platform}-${process.arch}`;
  if (packed.platform === platform) return;
  throw new PostgresStartError(
    "unsupported_platform",
    `This build carries no PostgreSQL for ${platform}. Set DATABASE_URL to a PostgreSQL of your own.`,
  );
}

interface Joined {
  readonly membership: Membership;
  readonly pid: number;
  /** Whether it was us who started the server. */
  readonly started: boolean;
}

/** Joins the server of the cluster, starting it when none runs. Any number of processes may do this at once. */
async function reach(folders: Folders, account: Account, options: StartOptions): Promise<Joined> {
  const { durability = "full", timeoutMs = 120_000 } = options;
  const deadline = performance.now() + timeoutMs;
  let server: Server | undefined;
  let refusal: unknown;

  while (performance.now() < deadline) {
    const running = await readPostmaster(folders.cluster);
    if (running?.ready) {
      const joined = await joinServer(socketIn(running.socketDir));
      if ("membership" in joined)
        return { membership: joined.membership, pid: running.pid, started: server?.child.pid === running.pid };
      refusal = joined.refusal;
    }
    if (server && isAlive(server)) {
      await Bun.sleep(5);
    } else if (running && (await isPostmasterOf(folders.cluster, running.pid))) {
      await Bun.sleep(20); // Somebody else's: it starts up, or shuts down.
    } else {
      if (server) await requireLostRace(server, folders);
      if (running) await removeReused(folders.cluster, running.pid);
      server = await spawnServer(folders, account, durability).catch(async (error) => {
        throw await explain(error, folders.server, account.uid);
      });
    }
  }
  if (server && isAlive(server)) await shutDown(folders.cluster, server.child.pid);
  throw new PostgresStartError(
    "timeout",
    `PostgreSQL did not accept connections within ${timeoutMs / 1000} s; see ${folders.log}.\n${(await server?.logTail()) ?? ""}`,
    { cause: refusal },
  );
}

const isAlive = ({ child }: Server): boolean => child.exitCode === null && child.signalCode === null;

/** Throws unless the server ended because of another one that held the cluster, so that it is worth another try. */
async function requireLostRace(server: Server, folders: Folders): Promise<void> {
  const tail = await server.logTail();
  // The last: the processes of a killed server, which end by themselves as soon as they notice.
  if (!/lock file ".*" already exists|lock file ".*" is empty|pre-existing shared memory block/.test(tail))
    throw serverExit(dirname(folders.cluster), server.child.signalCode ?? `exit code ${server.child.exitCode}`, tail);
  await Bun.sleep(50);
}

/** The server itself removes the file of a dead one, but not when its pid now belongs to some other process. */
async function removeReused(cluster: string, pid: number): Promise<void> {
  const lives = await Bun.file(`/proc/${pid}/stat`).exists();
  if (lives) await rm(join(cluster, "postmaster.pid"), { force: true });
}

async function leave({ membership, pid, started }: Joined, cluster: string): Promise<void> {
  const standing = await membership.leave();
  try {
    if (standing === "last" || (standing === "unanswered" && started)) await shutDown(cluster, pid);
  } finally {
    await membership.close();
  }
}

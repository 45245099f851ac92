import { open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Subprocess } from "bun";
import type { Account } from "./account.ts";
import type { Folders } from "./folders.ts";
import { isPostmasterOf } from "./postmaster.ts";

/** A server process that we started. */
export interface Server {
  readonly child: Subprocess;
  /** What it has written to its log so far, at most the last 2 kB. */
  logTail(): Promise<string>;
}

const MAX_LOG_BYTES = 10 * 1024 * 1024;
const LOG_TAIL_BYTES = 2048;

/** `none` is fast and loses the cluster with the machine. */
export type Durability = "full" | "none";

/** Starts the server on its unix socket; it is not ready yet when this returns. */
export async function spawnServer(folders: Folders, account: Account, durability: Durability): Promise<Server> {
  await rotate(folders.log);
  const log = await open(folders.log, "a", 0o600);
  try {
    const { size } = await log.stat();
    const program = join(folders.server, "bin/postgres");
    const child = Bun.spawn(
      [program, "-D", folders.cluster, ...settings(folders, durability).flatMap((setting) => ["-c", setting])],
      {
        ...account.switch,
        cwd: folders.cluster,
        // A session of its own: Ctrl-C in our terminal must not stop the server before we have drained.
        detached: true,
        // Nothing of ours: PGPORT and the like would change the server, and secrets have no business there.
        env: { LC_ALL: "C" },
        stdio: ["ignore", log.fd, log.fd],
      },
    );
    child.unref();
    return { child, logTail: () => tail(folders.log, size) };
  } finally {
    await log.close();
  }
}

/** Given on the command line and not in postgresql.conf: a newer Wordloom's settings hold for an older cluster. */
function settings(folders: Folders, durability: Durability): string[] {
  const always = [
    "listen_addresses=",
    `unix_socket_directories=${folders.socketDir}`,
    "unix_socket_permissions=0700",
    "port=5432",
    "shared_buffers=256MB",
    "wal_buffers=16MB",
    "max_connections=100",
    "shared_preload_libraries=pg_stat_statements",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_line_prefix=%m [%p] %d ",
    "log_checkpoints=off",
    // Its DETAIL quotes rows ("Key (name)=(…) already exists"), parameters are what users wrote.
    "log_error_verbosity=terse",
    "log_parameter_max_length=0",
    "log_parameter_max_length_on_error=0",
  ];
  return durability === "full" ? always : [...always, "fsync=off", "synchronous_commit=off", "full_page_writes=off"];
}

/**
 * Shuts the server down: fast (clients are disconnected, a checkpoint is written), and without ceremony when that
 * takes more than 10 s (the next start recovers). Returns when it is gone, or after 12 s.
 */
export async function shutDown(cluster: string, pid: number): Promise<void> {
  for (const [signal, patienceMs] of [
    ["SIGINT", 10_000],
    ["SIGQUIT", 2_000],
  ] as const) {
    const deadline = performance.now() + patienceMs;
    if (!(await isPostmasterOf(cluster, pid))) return;
    process.kill(pid, signal);
    while (performance.now() < deadline) {
      await Bun.sleep(5);
      if (!(await isPostmasterOf(cluster, pid))) return;
    }
  }
}

/** Removes the unpacked servers of other versions. Only for who started the server: none of them can be running. */
export async function removeOtherServers(server: string): Promise<void> {
  const others = (await readdir(dirname(server))).filter(
    (name) => name.startsWith("server-") && !name.endsWith(".tmp") && name !== basename(server),
  );
  await Promise.all(others.map((name) => rm(join(dirname(server), name), { recursive: true, force: true })));
}

async function rotate(log: string): Promise<void> {
  const seen = await stat(log).catch(() => undefined);
  if (seen && seen.size > MAX_LOG_BYTES) await rename(log, `${log}.1`);
}

async function tail(log: string, from: number): Promise<string> {
  const file = Bun.file(log);
  const { size } = await file.stat();
  return (await file.slice(Math.max(from, size - LOG_TAIL_BYTES)).text()).trim();
}

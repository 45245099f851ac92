import { readFile, readlink } from "node:fs/promises";
import { join } from "node:path";

/** What a server writes into the `postmaster.pid` of its cluster. The file outlives a crash: see `isRunning`. */
export interface Postmaster {
  readonly pid: number;
  readonly socketDir: string;
  readonly ready: boolean;
}

/** Reads `postmaster.pid`; undefined when there is none, or when its writer has not got to the socket line yet. */
export async function readPostmaster(cluster: string): Promise<Postmaster | undefined> {
  const text = await readFile(join(cluster, "postmaster.pid"), "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  // Lines: pid, data folder, start time, port, socket folder, TCP address, shared memory key, status.
  const [pid, , , , socketDir, , , status] = text.split("\n");
  if (!pid || !socketDir) return undefined;
  return { pid: Number(pid), socketDir, ready: status?.trim() === "ready" };
}

/**
 * Whether process `pid` is a server of this cluster, and not some other process that was given the number of a dead
 * one (usual after a reboot, and in containers, where every life begins at pid 1): a postmaster works in its cluster.
 */
export async function isPostmasterOf(cluster: string, pid: number): Promise<boolean> {
  const folder = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
  return folder === cluster;
}

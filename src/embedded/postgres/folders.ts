import { chown, exists, lstat, mkdir, readFile, realpath } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { codeOf } from "../../errors.ts";
import { type Account, accountFor, requireEntrance } from "./account.ts";
import { packed, unpackCluster, unpackServer } from "./archives.ts";
import { explain, PostgresStartError, unusableFolder } from "./failure.ts";

/** Where things lie below a data folder. */
export interface Folders {
  /** The programs: one folder for each packed version, owned by whoever unpacked it, read-only to the server. */
  readonly server: string;
  /** PGDATA. */
  readonly cluster: string;
  readonly socketDir: string;
  readonly log: string;
}

/** Longest path of a unix socket, in bytes (`sun_path` without its closing zero). */
const MAX_SOCKET_PATH = 107;
const SOCKET_FILE = ".s.PGSQL.5432";

/** The socket that a server opens in `socketDir`. */
export const socketIn = (socketDir: string): string => join(socketDir, SOCKET_FILE);

/**
 * Makes sure that the data folder holds the packed server and a cluster, unpacking what is missing, and that the
 * account which will run the server can use them. Throws PostgresStartError.
 */
export async function prepareFolders(dataDir: string): Promise<{ folders: Folders; account: Account }> {
  const account = await accountFor(join(dataDir, "data"));
  try {
    await mkdir(dataDir, { recursive: true, mode: process.getuid?.() === 0 ? 0o755 : 0o700 });
    const home = await realpath(dataDir);
    await requireEntrance(home, account);
    const folders: Folders = {
      server: join(home, `server-${packed.version}-${packed.serverHash}`),
      cluster: join(home, "data"),
      socketDir: socketDirFor(home),
      log: join(home, "postgres.log"),
    };
    const old = await exists(folders.cluster);
    if (old) await requireSameMajor(folders.cluster);
    await Promise.all([
      (await exists(folders.server)) || unpackServer(folders.server),
      old || unpackCluster(folders.cluster, account),
    ]);
    await makePrivate(folders.socketDir, account);
    return { folders, account };
  } catch (error) {
    throw await explain(error, dataDir, account.uid);
  }
}

/** In the data folder; a folder with a longer name has its socket in the system's temporary folder. */
function socketDirFor(home: string): string {
  const inside = join(home, "run");
  if (Buffer.byteLength(socketIn(inside)) <= MAX_SOCKET_PATH) return inside;
  return join(tmpdir(), `wordloom-${Bun.hash(home).toString(36)}`);
}

async function makePrivate(folder: string, account: Account): Promise<void> {
  try {
    await mkdir(folder, { mode: 0o700 });
    if (process.getuid?.() === 0) await chown(folder, account.uid, account.gid);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  }
  // In a world-writable folder another user may have been first, and could pose as our server.
  const { uid } = await lstat(folder);
  if (uid !== account.uid && uid !== 0) throw await unusableFolder(folder, account.uid);
}

async function requireSameMajor(cluster: string): Promise<void> {
  const major = (await readFile(join(cluster, "PG_VERSION"), "utf8")).trim();
  const ours = packed.version.split(".")[0];
  if (major === ours) return;
  throw new PostgresStartError(
    "other_major",
    `${cluster} was made by PostgreSQL ${major}; this build carries ${ours}, which cannot open it. Set WORDLOOM_DATA_DIR to another folder, or open it with the Wordloom that made it and move the data over with pg_dump.`,
  );
}

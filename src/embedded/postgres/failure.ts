import { stat } from "node:fs/promises";
import { dirname } from "node:path";
import { codeOf } from "../../errors.ts";

/** Why the embedded server could not be started. */
export type StartFailure =
  | "unsupported_platform"
  | "permission"
  | "disk_full"
  | "other_major"
  | "missing_library"
  | "server_exit"
  | "timeout";

/** The embedded server could not be started; the message names what to do next. */
export class PostgresStartError extends Error {
  override readonly name = "PostgresStartError";
  readonly reason: StartFailure;

  constructor(reason: StartFailure, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

const elsewhere = "Set WORDLOOM_DATA_DIR to a usable folder, or DATABASE_URL to your own server.";

/** The error for an unusable folder. It names the folder itself or, if it does not exist, its nearest existing ancestor. */
export async function unusableFolder(folder: string, uid: number, cause?: unknown): Promise<PostgresStartError> {
  let path = folder;
  let seen = await stat(path).catch(() => undefined);
  while (!seen && path !== dirname(path)) {
    path = dirname(path);
    seen = await stat(path).catch(() => undefined);
  }
  if (seen?.isDirectory() === false)
    return new PostgresStartError("permission", `${path} is a file, not a folder. ${elsewhere}`, { cause });
  const owner = seen ? ` (owner ${seen.uid}, mode ${(seen.mode & 0o777).toString(8)})` : "";
  const why = uid === process.getuid?.() ? "" : " PostgreSQL does not run as root, so root starts it as another user.";
  return new PostgresStartError(
    "permission",
    `PostgreSQL, as uid ${uid}, cannot use ${path}${owner}.${why} ${elsewhere}`,
    { cause },
  );
}

/** Turns a file system error into one with a next step; anything else is returned as it is. */
export async function explain(error: unknown, folder: string, uid: number): Promise<unknown> {
  const code = codeOf(error);
  // The last three: a file where a folder should be, and folders that cannot be made at all, as in /proc.
  if (["EACCES", "EPERM", "EROFS", "EEXIST", "ENOTDIR", "ENOENT"].includes(code ?? "")) {
    const named = error instanceof Error && "path" in error && typeof error.path === "string" ? error.path : folder;
    return unusableFolder(named, uid, error);
  }
  if (code === "ENOSPC" || code === "EDQUOT") return diskFull(folder, error);
  return error;
}

/** The error for a server that exited before it was ready, judged by the last lines of its log. */
export function serverExit(folder: string, exitCode: number | string, logTail: string): PostgresStartError {
  if (/No space left on device|Disk quota exceeded/.test(logTail)) return diskFull(folder, undefined, logTail);
  if (/error while loading shared libraries|version `(GLIBC|GLIBCXX|CXXABI)/.test(logTail))
    return new PostgresStartError(
      "missing_library",
      `PostgreSQL needs glibc 2.27 or newer and libstdc++ (Debian and Ubuntu: apt-get install libstdc++6), or give DATABASE_URL.\n${logTail}`,
    );
  return new PostgresStartError(
    "server_exit",
    `PostgreSQL exited during start-up (${exitCode}). Its last lines:\n${logTail}`,
  );
}

function diskFull(folder: string, cause: unknown, detail = ""): PostgresStartError {
  const message = `No space left for PostgreSQL in ${folder}: it needs about 150 MB to start. Free some, or set WORDLOOM_DATA_DIR to another disk.`;
  return new PostgresStartError("disk_full", detail ? `${message}\n${detail}` : message, { cause });
}

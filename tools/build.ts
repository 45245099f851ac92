/**
 * Builds `dist/wordloom`, the one binary with everything in it, and prints its size and checksum.
 *
 * The flags were measured: bytecode starts in 25 ms in place of 90; identifiers stay whole, because minified ones turn
 * function names in stacks into noise for 1 MB. Never `strip` the result: what is left is plain bun.
 */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { version } from "../package.json";

/** The program, and what it runs in workers: the compiler does not find those by itself. */
const entryPoints = ["src/main.ts", "src/embedded/elasticsearch/worker.ts", "src/embedded/collector/worker.ts"];

const root = join(import.meta.dir, "..");
const binary = join(root, "dist/wordloom");

await mkdir(join(root, "dist"), { recursive: true });
// A build that fails must not leave the last one to be tested in its place.
await rm(binary, { force: true });
await run([process.execPath, "tools/pack-postgres.ts", "--release"]);
await run([
  process.execPath,
  "build",
  ...entryPoints,
  `--outfile=${binary}`,
  "--compile",
  "--minify-whitespace",
  "--minify-syntax",
  "--sourcemap",
  "--bytecode",
  "--format=esm",
  // What lies in the folder where an operator starts it must not change what it does.
  "--no-compile-autoload-dotenv",
  "--no-compile-autoload-bunfig",
  `--define=process.env.NODE_ENV="production"`,
  `--define=WORDLOOM_VERSION=${JSON.stringify(`${version}+${revision()}`)}`,
]);

const bytes = await Bun.file(binary).bytes();
const sha256 = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
process.stdout.write(`${(bytes.length / 1e6).toFixed(1)} MB  sha256 ${sha256}  dist/wordloom\n`);

/** The commit, marked when the work tree differs from it; "unknown" outside of a repository. */
function revision(): string {
  const git = Bun.spawnSync(["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"], { cwd: root });
  return git.success ? git.stdout.toString().trim().replace("-dirty", ".dirty") : "unknown";
}

async function run(command: string[]): Promise<void> {
  const child = Bun.spawn(command, {
    cwd: root,
    env: { ...process.env, NODE_ENV: "production" },
    stdio: ["ignore", "inherit", "inherit"],
  });
  if ((await child.exited) !== 0) throw new Error(`\`${command.join(" ")}\` failed`);
}

// From a clean checkout to a running command, with Node 20 and npm alone: `npm start`, `npm test`, `npm run build`.
// Node's standard library only: nothing is installed yet when this runs.
//
//   node tools/bootstrap.mjs (start | test | build) [arguments for it]
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const bun = join(root, "node_modules/.bin/bun");

const commands = {
  start: ["src/main.ts", "up"],
  test: ["tools/gate.ts"],
  build: ["tools/build.ts"],
};

function main() {
  const [name, ...rest] = process.argv.slice(2);
  const command = commands[name];
  if (!command) fail(`usage: node tools/bootstrap.mjs (${Object.keys(commands).join(" | ")}) [arguments]`);
  install();
  // The build packs smaller archives by itself, which do for the others too.
  if (name !== "build") step("PostgreSQL", [bun, "tools/pack-postgres.ts"], { quiet: true });
  follow([bun, ...command, ...rest]);
}

/** Installs the frozen lock, unless node_modules was made from this very lock. */
function install() {
  const lock = createHash("sha256");
  for (const file of ["bun.lock", "package.json"]) lock.update(readFileSync(join(root, file)));
  const wanted = lock.digest("hex");
  const stamp = join(root, "node_modules/.installed");
  if (existsSync(bun) && existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;

  rmSync(stamp, { force: true });
  const { devDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const anyBun = existsSync(bun) ? [bun] : ["npx", "--yes", "--allow-scripts=bun", `bun@${devDependencies.bun}`];
  step("packages", [...anyBun, "install", "--frozen-lockfile"]);
  writeFileSync(stamp, wanted);
}

/** Runs a step to its end: one line about it (none if `quiet` and it had nothing to do), its output only on failure. */
function step(title, [program, ...args], { quiet = false } = {}) {
  const started = performance.now();
  if (!quiet) process.stderr.write(`${title} …`);
  const { status, signal, stdout, stderr, error } = spawnSync(program, args, {
    cwd: root,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (status !== 0) {
    process.stderr.write(`\n${stdout ?? ""}${stderr ?? ""}`);
    fail(`${title}: \`${[program, ...args].join(" ")}\` failed (${error?.message ?? signal ?? `exit code ${status}`})`);
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  if (!quiet) process.stderr.write(` ${seconds} s\n`);
  else if (stdout) process.stderr.write(stdout);
}

/** Becomes the command, as far as one process can become another: its output, its signals, its exit code. */
function follow([program, ...args]) {
  // In a session of its own, so that signals reach it from here alone. A Ctrl-C comes twice, from the terminal and passed on by npm: Wordloom takes it for one.
  const child = spawn(program, args, { cwd: root, stdio: "inherit", detached: true });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"])
    process.on(signal, () => child.kill(signal === "SIGHUP" ? "SIGTERM" : signal));
  child.on("error", (error) => fail(`cannot run ${program}: ${error.message}`));
  child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

main();

/** The compiled binary, started from an empty folder as a stranger would. The gate runs this after the build. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { version } from "../package.json";
import { freePort } from "../test/support/cli.ts";
import { until } from "../test/support/until.ts";

const binary = join(import.meta.dir, "../dist/wordloom");
let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "wordloom-smoke-"));
  // As root the database runs as another user, who must be able to enter.
  await chmod(folder, 0o755);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const start = (...args: string[]) =>
  Bun.spawn([binary, ...args], {
    cwd: folder,
    env: { PATH: process.env["PATH"], HOME: folder, WORDLOOM_DATA_DIR: join(folder, "data") },
    stdio: ["ignore", "pipe", "pipe"],
  });

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const child = start(...args);
  const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { code: await child.exited, out, err };
}

test("--version tells the version and the commit", async () => {
  const { code, out } = await run("--version");
  expect(code).toBe(0);
  expect(out.trim()).toMatch(new RegExp(`${RegExp.escape(version)}\\+[0-9a-f]{12}(\\.dirty)?$`));
});

test("--help names the commands and goes to stdout", async () => {
  const { code, out } = await run("--help");
  expect(code).toBe(0);
  for (const command of ["up", "serve", "work", "migrate", "import", "rebuild", "replay", "labs"])
    expect(out).toContain(command);
});

test("an unknown command is a usage error", async () => {
  const { code, err } = await run("frobnicate");
  expect(code).toBe(2);
  expect(err).toContain("frobnicate");
});

test("a drill breaks processes of this very binary, and its evidence holds", async () => {
  const ran = await run("labs", "run", "es_down_connect", "--run-id", "smoke");
  expect(ran.code, ran.err).toBe(0);
  expect(ran.out).toBe("docs/labs/_snapshot/auto/S3A-2A-3A/es_down_connect/smoke\n");
  const verified = await run("labs", "verify", "es_down_connect");
  expect(verified.code, verified.out).toBe(0);
});

test("up answers on the port that it is given, ends in order on SIGTERM, and does so again on the same data", async () => {
  for (const round of ["first", "second"]) {
    const port = freePort();
    const child = start("up", "--port", String(port));
    const output = Promise.all([child.stdout.text(), child.stderr.text()]);
    try {
      const began = performance.now();
      await answers(`http://127.0.0.1:${port}/`, child);
      process.stdout.write(`${round} up: answers after ${(performance.now() - began).toFixed(0)} ms\n`);
      child.kill("SIGTERM");
      expect(await child.exited, (await output).join("")).toBe(0);
    } finally {
      child.kill("SIGKILL");
    }
  }
});

/** Waits until something answers; any status will do. */
async function answers(url: string, child: Bun.Subprocess): Promise<void> {
  const asked = () => {
    if (child.exitCode !== null) throw new Error(`it ended with exit code ${child.exitCode}`);
    return fetch(url).catch(() => undefined);
  };
  await until(`an answer at ${url}`, asked, 50_000, 20);
}

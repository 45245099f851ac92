import { afterAll, expect, test } from "bun:test";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort, wordloom } from "../support/cli.ts";
import { type Process, startUp } from "../support/processes.ts";
import { until } from "../support/until.ts";

/** docs/backup.md, with the embedded servers: Postgres goes back to a copy of its folder, the search engine stays where it is. */

const folder = await mkdtemp(join(tmpdir(), "wordloom-restore-"));
// As root the embedded Postgres runs as another user, who must be able to enter.
await chmod(folder, 0o755);
const data = join(folder, "data");
const [postgres, backup] = [join(data, "postgres"), join(folder, "backup")];
const env = {
  WORDLOOM_ENV: "test",
  WORDLOOM_DATA_DIR: data,
  EMBEDDED_ELASTIC_PORT: String(freePort()),
  OUTBOX_METRICS_PORT: "0",
};

const running = new Set<Process>();
afterAll(async () => {
  for (const { kill } of running) kill("SIGKILL");
  await Promise.all(Array.from(running, ({ exited }) => exited));
  await rm(folder, { recursive: true });
});

async function up(): Promise<Process> {
  const process = await startUp(env);
  running.add(process);
  return process;
}

async function stop(process: Process): Promise<void> {
  process.kill("SIGTERM");
  expect(await process.exited).toBe(0);
  running.delete(process);
}

const copy = async (from: string, to: string) => expect(await Bun.spawn(["cp", "-a", from, to]).exited).toBe(0);

const write = async ({ url }: Process, method: string, path: string, name: string) => {
  const response = await fetch(`${url}/api/v1/tags${path}`, {
    method,
    body: JSON.stringify({ name, color: "#FFFFFF" }),
  });
  expect(response.ok).toBe(true);
  const { id } = (await response.json()) as { id: string };
  return id;
};
const found = async ({ url }: Process, q: string): Promise<string[]> => {
  const { hits } = (await (await fetch(`${url}/api/v1/search?q=${q}`)).json()) as { hits: { title: string }[] };
  return hits.map(({ title }) => title);
};
const finds = (process: Process, q: string) =>
  until(`"${q}" is found`, async () => (await found(process, q)).join() === q);

test("after Postgres is restored no search serves what it has lost, and a rebuild makes search whole again", async () => {
  let wordloomUp = await up();
  const id = await write(wordloomUp, "POST", "", "kept");
  await finds(wordloomUp, "kept");
  await stop(wordloomUp);
  await copy(postgres, backup);

  wordloomUp = await up();
  await write(wordloomUp, "PATCH", `/${id}`, "forgotten");
  await write(wordloomUp, "POST", "", "neverborn");
  await finds(wordloomUp, "forgotten");
  await finds(wordloomUp, "neverborn");
  await stop(wordloomUp);

  await rm(postgres, { recursive: true });
  await copy(backup, postgres);
  wordloomUp = await up();
  expect([await found(wordloomUp, "forgotten"), await found(wordloomUp, "neverborn")]).toEqual([[], []]);
  expect(wordloomUp.lines.filter((line) => line.includes("search.index_ahead"))).toHaveLength(1);

  const differs = await wordloom(["check"], env);
  expect(differs.code).toBe(10);
  expect(differs.out).toContain(`2 differences\n`);
  expect(differs.out).toContain(`tag:${id} ahead\n`);
  expect(differs.err).toContain("`wordloom rebuild`");

  const rebuilt = await wordloom(["rebuild", "--json"], env);
  expect([rebuilt.code, rebuilt.err]).toEqual([0, ""]);
  const same = await wordloom(["check"], env);
  expect([same.code, same.err]).toEqual([0, ""]);
  expect(same.out).toMatch(/^1 document compared with wordloom-test-search-index in [\d.]+ s: no difference\n$/);
  await finds(wordloomUp, "kept");
  // The same version once more, and other words.
  await write(wordloomUp, "PATCH", `/${id}`, "rewritten");
  await finds(wordloomUp, "rewritten");
  for (const lost of ["forgotten", "neverborn", "kept"]) expect(await found(wordloomUp, lost)).toEqual([]);
  await stop(wordloomUp);
}, 120_000);

import { expect, test } from "bun:test";
import { join } from "node:path";
import { readConfig, unknownVariables } from "../src/config.ts";

/** The image as its file describes it; `docker build` itself needs a daemon, which no test may count on. */

const root = join(import.meta.dir, "..");
const text = await Bun.file(join(root, "Dockerfile")).text();
const instructions = text
  .split("\n")
  .filter((line) => !line.startsWith("#"))
  .join("\n")
  .replaceAll("\\\n", " ")
  .split("\n")
  .flatMap((line) => {
    const [, name, rest] = /^([A-Z]+)\s+(.+)$/.exec(line) ?? [];
    return name === undefined || rest === undefined ? [] : [{ name, rest }];
  });
const all = (name: string) => instructions.filter((one) => one.name === name).map(({ rest }) => rest);
/** Of the image that is made, which comes last. */
const last = (name: string) => all(name).at(-1) ?? "";

test("the image sets variables that wordloom knows, and listens where a container can be reached", () => {
  const pairs = last("ENV")
    .split(/\s+/)
    .map((pair) => pair.split("=") as [string, string]);
  const env = Object.fromEntries(pairs);
  expect(unknownVariables(env)).toEqual([]);
  expect(readConfig(env).API_HOST).toBe("0.0.0.0");
  expect(last("VOLUME")).toBe(readConfig(env).WORDLOOM_DATA_DIR ?? "");
});

test("the ports are those of the API and of a worker", () => {
  const { API_PORT, OUTBOX_METRICS_PORT } = readConfig({});
  expect(last("EXPOSE").split(" ").map(Number)).toEqual([API_PORT, OUTBOX_METRICS_PORT, OUTBOX_METRICS_PORT + 2]);
});

test("every base image has a version, and the process is not root", () => {
  for (const image of all("FROM")) expect(image).toMatch(/^[a-z]+:(\d+-)?bookworm(-slim)?( AS [a-z]+)?$/);
  expect(last("USER")).toMatch(/^[1-9]\d*:[1-9]\d*$/);
});

test("what is copied is there, and of what is committed nothing is left out", async () => {
  const ignored = (await Bun.file(join(root, ".dockerignore")).text())
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
  const committed = Bun.spawnSync(["git", "ls-files"], { cwd: root }).stdout.toString().trim().split("\n");
  for (const pattern of ignored) {
    const glob = new Bun.Glob(pattern.includes("*") ? pattern : `{${pattern},${pattern}/**}`);
    expect(
      committed.filter((path) => glob.match(path)),
      pattern,
    ).toEqual([]);
  }
  for (const command of all("RUN").flatMap((run) => /\bnode (\S+)/.exec(run)?.[1] ?? []))
    expect(await Bun.file(join(root, command)).exists(), command).toBe(true);
});

import { expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { version } from "../../package.json";
import { commands, subcommands } from "../../src/cli/application.ts";
import { readConfig } from "../../src/config.ts";
import { wordloom } from "../support/cli.ts";

test("without arguments it tells what there is, on stdout", async () => {
  const { code, out, err } = await wordloom([]);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(out).toContain("Examples:");
  expect(out).toContain("import");
});

test("every command has a help with its flags, without colours", async () => {
  expect(commands.length).toBeGreaterThan(3);
  const inner = [...subcommands].flatMap(([command, names]) => names.map((name) => [command, name]));
  expect(inner.length).toBeGreaterThan(3);
  const helps = await Promise.all(
    [...commands.map((command) => [command]), ...inner].map((command) => wordloom([...command, "--help"])),
  );
  for (const { code, out } of helps) {
    expect(code).toBe(0);
    expect(out).toStartWith("USAGE");
    expect(out).toContain("--help");
    expect(out).not.toContain("\u001b[");
  }
});

test.each([
  [["imprt"], "did you mean `import`?"],
  [["import", ".", "--librari", "x"], "did you mean --library?"],
  [["import", "."], "library"],
  [["import", ".", "--library", " "], "--library must be a name"],
  [["import", "--library", "x"], "dir"],
  [["import", "a", "b", "--library", "x"], "b"],
  [["import", "/nowhere", "--library", "x"], "/nowhere does not exist"],
  [["config", "--env-file", "/nowhere"], "--env-file: /nowhere cannot be read"],
] as const)("wrong usage is one line on stderr and exit code 2: %j", async (args, message) => {
  const { code, out, err } = await wordloom(args);
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(err).toStartWith("wordloom: ");
  expect(err).toContain(message);
  expect(err.trim().split("\n")).toHaveLength(1);
});

test("the version is the package's, and is told with commit and Bun as JSON", async () => {
  const [flag, json] = await Promise.all([wordloom(["--version"]), wordloom(["version", "--json"])]);
  expect(flag).toMatchObject({ code: 0, out: `wordloom ${version}+dev\n` });
  expect(JSON.parse(json.out)).toEqual({ version, commit: "dev", bun: Bun.version });
});

test("a reader that goes away early is no failure", async () => {
  const main = join(import.meta.dir, "../../src/main.ts");
  const child = Bun.spawn(
    ["bash", "-c", `set -o pipefail; "$0" "$1" config --json | head -c 1`, process.execPath, main],
    {
      env: { PATH: process.env["PATH"], HOME: "/" },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  expect(await child.stderr.text()).toBe("");
  expect(await child.exited).toBe(0);
});

test("every fault of the configuration is told at once, never with its value, and exit code 2", async () => {
  const { code, err } = await wordloom(["config"], { OUTBOX_BULK_SIZE: "hunter2", API_PORT: "70000" });
  expect(code).toBe(2);
  expect(err).toContain("OUTBOX_BULK_SIZE is text of 7 characters; expected a whole number from 1 to 10000");
  expect(err).toContain("API_PORT is a whole number; expected a whole number from 0 to 65535");
  expect(err).not.toContain("hunter2");
});

test("a variable that looks like one of ours is pointed out", async () => {
  const { code, err } = await wordloom(["config"], { OUTBOX_BULK_SIZ: "1" });
  expect(code).toBe(0);
  expect(err).toContain("OUTBOX_BULK_SIZ is not a known variable");
});

test("config shows what is in force and where secrets lead, never the secrets", async () => {
  const secrets = {
    DATABASE_URL: "postgresql+psycopg://app:s3cret@db.example:5432/wordloom?password=s3cret",
    ELASTIC_URL: "https://elastic:s3cret@es.example:9200/?key=s3cret",
    ELASTIC_API_KEY: "s3cret",
    OTEL_EXPORTER_OTLP_HEADERS: "authorization=s3cret",
    OUTBOX_BATCH_SIZE: "7",
  };
  const [text, json] = await Promise.all([wordloom(["config"], secrets), wordloom(["config", "--json"], secrets)]);
  expect(text.out).toContain("postgresql+psycopg://***@db.example:5432/wordloom");
  const rows = JSON.parse(json.out) as { name: string; value: string; source: string }[];
  const row = (name: string) => rows.find((r) => r.name === name);
  expect(row("ELASTIC_API_KEY")).toMatchObject({ value: "(set)", source: "ELASTIC_API_KEY" });
  expect(row("OUTBOX_BULK_SIZE")).toMatchObject({ value: "7", source: "OUTBOX_BATCH_SIZE" });
  expect(row("API_PORT")).toMatchObject({ value: "8000", source: "default" });
  expect(text.out + text.err + json.out + json.err).not.toContain("s3cret");
});

test("words of older environment files are read, and a variable that says nothing any more is told with the reason", async () => {
  const { code, err } = await wordloom(["config"], { LOG_LEVEL: "WARNING", OUTBOX_USE_ES_BULK: "0" });
  expect(code).toBe(0);
  expect(err).toBe("wordloom: OUTBOX_USE_ES_BULK has no effect: everything is sent in bulk requests\n");
  expect(readConfig({ LOG_LEVEL: "WARNING" }).LOG_LEVEL).toBe("warn");
  expect(readConfig({ LOG_LEVEL: "Critical" }).LOG_LEVEL).toBe("fatal");
});

test("--env-file wins over the environment", async () => {
  const file = join(tmpdir(), `wordloom-env-${process.pid}`);
  await Bun.write(file, '# comment\nexport API_PORT=9001\nAPI_HOST="0.0.0.0" # all\n');
  const { out } = await wordloom(["config", "--json", "--env-file", file], { API_PORT: "9002", LOG_LEVEL: "debug" });
  await rm(file);
  const rows = JSON.parse(out) as { name: string; value: string }[];
  const value = (name: string) => rows.find((r) => r.name === name)?.value;
  expect([value("API_PORT"), value("API_HOST"), value("LOG_LEVEL")]).toEqual(["9001", "0.0.0.0", "debug"]);
});

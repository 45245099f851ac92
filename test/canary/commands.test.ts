import { expect, onTestFinished, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { run as runApplication } from "@stricli/core";
import { Glob } from "bun";
import { application } from "../../src/cli/application.ts";
import { variables } from "../../src/config.ts";
import { freePort, start } from "../support/cli.ts";
import { answers, until } from "../support/until.ts";
import { canary, openEvidence } from "./evidence.ts";
import {
  common,
  elastic,
  evidence,
  expectNothing,
  folder,
  line,
  run,
  secrets,
  text,
  withoutKey,
  withTrouble,
} from "./scene.ts";
import { page, refusal } from "./servers.ts";

// Many processes start in each of these.
setDefaultTimeout(120_000);

/** A command in this process, to its end. */
async function runInside(args: readonly string[], env: Readonly<Record<string, string>>, code: number): Promise<void> {
  const said: string[] = [];
  const stream = { write: (text: string) => void said.push(text) };
  const io = { stdout: stream, stderr: stream, env: {}, exitCode: null as number | string | null };
  const context = { process: io, env: { ...common, ...env }, signal: new AbortController().signal };
  await runApplication(application, args, context);
  evidence.add(`wordloom ${args[0]}`, said.join(""));
  expect(Number(io.exitCode), `${args.join(" ")}: ${said.join("")}`).toBe(code);
}

test("every secret of the configuration has its canary", () => {
  expect(Object.keys(secrets).toSorted()).toEqual(
    variables
      .filter((v) => v.secret)
      .map((v) => v.name)
      .toSorted(),
  );
});

test("a canary is found whatever it is wrapped in", () => {
  const word = canary("wrapped");
  const basic = (user: string) => `Basic ${Buffer.from(`${user}:${word}`).toString("base64")}`;
  const wrapped = [
    word.toUpperCase(),
    `a${word}b`,
    basic("a"),
    basic("ab"),
    basic("abc"),
    Buffer.from(word).toString("hex"),
  ];
  for (const said of wrapped) {
    const own = openEvidence();
    own.add("somewhere", `before ${said} after`);
    expect([said, own.finds().length]).toEqual([said, 1]);
  }
});

test("an import tells nothing of what it reads, also when it fails", async () => {
  await Bun.write(join(folder, "notes", "a.md"), `# ${line("heading")}\n\n${text("paragraph")}\n`);
  await Bun.write(join(folder, "notes", "bad.md"), Buffer.from(`# ${line("heading")}\n\xff`, "latin1"));
  const args = (name: string) => ["import", join(folder, "notes"), "--library", name];
  // One file of the two is no UTF-8.
  await run([...args("whole"), "--json"], secrets, [1]);
  for (const [sqlState, code] of [
    ["P0001", 1],
    ["42501", 4],
    ["57P01", 4],
    ["57014", 1],
  ] as const)
    await withTrouble(sqlState, () => run(args(`with ${sqlState}`), secrets, [code]));
  expectNothing();
});

test("no command tells a secret, whatever is wrong with it", async () => {
  const word = canary("wrong");
  const file = join(folder, "env");
  await Bun.write(
    file,
    Object.entries(secrets)
      .map(([name, value]) => `${name}=${value}\n`)
      .join(""),
  );
  const taken = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() });
  const port = String(taken.port);
  const away = `http://${word}:${word}@127.0.0.1:1`;
  const none = { ...secrets, OTEL_EXPORTER_OTLP_ENDPOINT: away, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: away };
  type Case = [args: readonly string[], env: Readonly<Record<string, string>>, code: number];
  const databases = [
    `mysql://u:${word}@h/db`,
    `postgresql://u:1/${word}@h:5432/db`,
    `postgresql://u:a/${word}@h/db`,
    `postgresql://u:%zz${word}@h/db`,
    `postgresql://u:${word}@h`,
    `postgresql://u:${word}@[h/db`,
    `postgresql://u:${word}@h/db?sslmode=${word}`,
    `postgresql://u:${word}@h/db%zz`,
    word,
  ];
  const urls = [`http://u:${word}@h:99999`, `http://u:${word}@[h`, `http://u:12#${word}@h`, `http://u:%zz${word}@h`];
  /** What ends by reading the configuration needs no process of its own. */
  const read: Case[] = [
    [["config"], secrets, 0],
    [["config", "--json"], secrets, 0],
    [["config", "--env-file", file], {}, 0],
    [["config"], { DATABASE_URL: `postgresql://u:1/${word}@h:5432/db` }, 0],
    [["config"], { DATABASE_URL: `postgresql://u:1#${word}@h/db` }, 0],
    [["config"], { DATABASE_URL: `postgresql://u:a/${word}@h/db`, ELASTIC_URL: `http://h/?a=${word}@x` }, 0],
    [["config"], { API_PORT: word, LOG_LEVEL: word, ELASTIC_URL: word, DEV_USER_ID: word, OUTBOX_BULK_SIZE: word }, 2],
    ...databases.map((url): Case => [["migrate"], { DATABASE_URL: url }, 2]),
    ...urls.flatMap((url): Case[] => [
      [["serve", "--port", "0"], { ...secrets, ELASTIC_URL: url }, 2],
      [["work"], { ...secrets, OTEL_EXPORTER_OTLP_ENDPOINT: url }, 2],
      [["serve", "--port", "0"], { ...secrets, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: url }, 2],
    ]),
    [["work"], { ...secrets, ELASTIC_API_KEY: `${word}\nx: ${word}` }, 2],
    [["serve", "--port", "0"], { ...secrets, OTEL_EXPORTER_OTLP_HEADERS: `x-key=%zz${word}` }, 2],
    [["migrate"], { ...secrets, WORDLOOM_ENV: word }, 5],
    [
      ["migrate"],
      { ...secrets, DATABASE_URL: `postgresql://u:${word}@127.0.0.1:1/wordloom_dev`, WORDLOOM_ENV: "prod" },
      5,
    ],
  ];
  for (const [args, env, code] of read) await runInside(args, env, code);
  const sandbox = (address: string) => ({
    DATABASE_URL: `postgresql://u:${word}@127.0.0.1:${address}`,
    WORDLOOM_ENV: "sandbox",
  });
  const cases: Case[] = [
    [["migrate"], secrets, 0],
    [["migrate", "--dry-run", "--json"], secrets, 0],
    [["replay", "--by", "ops", "--reason", "mended", "--json"], secrets, 0],
    [["migrate"], sandbox("1/wordloom_sandbox"), 4],
    [["migrate"], sandbox(`${port}/wordloom_sandbox?sslmode=require`), 4],
    [["serve", "--port", port], none, 1],
    [["work"], { ...none, OUTBOX_METRICS_PORT: port }, 1],
    [["collector", "--memory", "--port", port], secrets, 1],
    [["work"], { ...none, OUTBOX_METRICS_PORT: "0", OUTBOX_RUN_SECONDS: "0.3", LOG_JSON: "0" }, 0],
  ];
  for (const one of [0, 1, 2])
    await Promise.all(cases.filter((_, i) => i % 3 === one).map(([args, env, code]) => run(args, env, [code])));
  // An engine that refuses us at the start, in words that hold all that it was told.
  for (const answer of [refusal(401, "security_exception"), page(401), page(200), page(502)]) {
    elastic.answer = () => answer;
    await run(["work"], { ...withoutKey, OUTBOX_METRICS_PORT: "0", OUTBOX_RUN_SECONDS: "0.2", LOG_JSON: "0" }, [0, 4]);
  }
  elastic.answer = () => null;
  await taken.stop(true);
  expectNothing();
});

test("`up` keeps texts out of its lines, and out of the log of its Postgres", async () => {
  const port = freePort();
  const child = start(["up", "--no-welcome", "--port", String(port)], {
    ...common,
    LOG_JSON: "0",
    EMBEDDED_ELASTIC_PORT: "0",
    EMBEDDED_COLLECTOR_PORT: "0",
    EMBEDDED_COLLECTOR_QUERY_PORT: "0",
    OTEL_EXPORTER_OTLP_HEADERS: secrets["OTEL_EXPORTER_OTLP_HEADERS"] ?? "",
    OUTBOX_DB_PING_TIMEOUT_SECONDS: "5",
  });
  onTestFinished(() => child.kill("SIGKILL"));
  const said = Promise.all([child.stdout.text(), child.stderr.text()]);
  const url = `http://127.0.0.1:${port}`;
  await until("it is up", () => answers(`${url}/readyz`));
  const statuses: number[] = [];
  const post = async (path: string, body: unknown) =>
    statuses.push((await fetch(`${url}/api/v1/${path}`, { method: "POST", body: JSON.stringify(body) })).status);
  for (const name of [line("tag"), line("tag"), `${line("tag")}\0`])
    await post("tags", { name, description: text("tagtext") });
  for (const name of [line("library"), line("library")]) await post("libraries", { name });
  expect(statuses).toEqual([201, 409, 422, 201, 409]);
  evidence.add("metrics of up", await (await fetch(`${url}/metrics`)).text());
  child.kill("SIGTERM");
  evidence.add("wordloom up", (await said).join("\n"));
  expect(child.exitCode ?? (await child.exited)).toBe(0);
  const logs = [...new Glob("**/*.log*").scanSync({ cwd: join(folder, "data"), absolute: true })];
  expect(logs).not.toEqual([]);
  for (const log of logs) evidence.add(`log ${log}`, await Bun.file(log).text());
  expect(evidence.holds("log", "duplicate key value violates unique constraint")).toBe(true);
  expectNothing();
});

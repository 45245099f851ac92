/**
 * Runs the contract suite against the embedded engine and against real Elasticsearch, and says against which.
 * Real ones are those that ELASTIC_CONTRACT_URL names; else, where the repository lies beside `shared`, a 9.2.2 and an
 * 8.19.9 node are started for the run, on free ports and with data folders of their own.
 */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../test/support/cli.ts";
import { answers, until } from "../test/support/until.ts";

const root = join(import.meta.dir, "..");
const run = join(root, "../shared/elasticsearch/run");
const startDeadlineMs = 120_000;

interface Node {
  readonly url: string;
  stop(): Promise<void>;
}

async function startNode(version: string): Promise<Node> {
  const port = freePort();
  const data = mkdtempSync(join(tmpdir(), "wordloom-contract-es-"));
  const log = join(data, "node.log");
  const child = Bun.spawn([run, "--version", version, "--port", String(port), "--data", data, "--heap", "512m"], {
    stdout: Bun.file(log),
    stderr: Bun.file(log),
  });
  const stop = async () => {
    child.kill("SIGTERM");
    await child.exited;
    rmSync(data, { recursive: true, force: true });
  };
  const url = `http://127.0.0.1:${port}`;
  const ready = () => {
    if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`);
    return answers(`${url}/_cluster/health`);
  };
  try {
    await until(`${url} to answer`, ready, startDeadlineMs, 200);
  } catch (cause) {
    const said = await Bun.file(log).text();
    await stop();
    throw new Error(`Elasticsearch ${version} did not start:\n${said.slice(-2_000)}`, { cause });
  }
  return { url, stop };
}

async function runSuite(urls: string): Promise<number> {
  const args = process.argv.slice(2);
  const suite = Bun.spawn([process.execPath, "test", "./test/contract", ...args], {
    cwd: root,
    env: { ...process.env, ELASTIC_CONTRACT_URL: urls },
    stdout: "inherit",
    stderr: "inherit",
  });
  return await suite.exited;
}

const say = (line: string) => process.stdout.write(`${line}\n`);
const given = process.env["ELASTIC_CONTRACT_URL"] ?? "";
if (given !== "") {
  const code = await runSuite(given);
  say(`contract: checked the embedded engine and ${given.split(",").length} server(s) of ELASTIC_CONTRACT_URL`);
  process.exit(code);
}
if (!existsSync(run)) {
  const code = await runSuite("");
  say("contract: ONLY the embedded engine was checked; name a real Elasticsearch in ELASTIC_CONTRACT_URL");
  process.exit(code);
}
const started = await Promise.allSettled(["9.2.2", "8.19.9"].map(startNode));
const nodes = started.flatMap((node) => (node.status === "fulfilled" ? [node.value] : []));
try {
  for (const node of started) if (node.status === "rejected") throw node.reason;
  process.exitCode = await runSuite(nodes.map(({ url }) => url).join(","));
  say("contract: checked the embedded engine and Elasticsearch 9.2.2 and 8.19.9");
} finally {
  await Promise.all(nodes.map((node) => node.stop()));
}

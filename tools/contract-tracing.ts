/**
 * Runs the tracing contract suite against real Jaeger, and says against which: the one that JAEGER_CONTRACT_OTLP_URL and JAEGER_CONTRACT_QUERY_URL name, else,
 * where the repository lies beside `shared`, one that is started for the run. The embedded trace store runs the same suite with all other tests.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "../test/support/cli.ts";
import { until } from "../test/support/until.ts";

const root = join(import.meta.dir, "..");
const run = join(root, "../shared/jaeger/run");
const startDeadlineMs = 120_000;

async function runSuite(otlpUrl: string, queryUrl: string): Promise<number> {
  const suite = Bun.spawn([process.execPath, "test", "./test/contract/tracing", ...process.argv.slice(2)], {
    cwd: root,
    env: { ...process.env, JAEGER_CONTRACT_OTLP_URL: otlpUrl, JAEGER_CONTRACT_QUERY_URL: queryUrl },
    stdio: ["ignore", "inherit", "inherit"],
  });
  return await suite.exited;
}

async function startJaeger() {
  const [otlp, query] = [freePort(), freePort()];
  const child = Bun.spawn([run, "--otlp-port", String(otlp), "--query-port", String(query)], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const said = child.stderr.text();
  const stop = async () => {
    child.kill("SIGTERM");
    await child.exited;
  };
  const otlpUrl = `http://127.0.0.1:${otlp}`;
  // It answers OTLP last.
  const answers = () => {
    if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`);
    return fetch(`${otlpUrl}/v1/traces`).then(
      ({ status }) => status === 405,
      () => false,
    );
  };
  try {
    await until(`${otlpUrl} to answer`, answers, startDeadlineMs, 100);
  } catch (cause) {
    await stop();
    throw new Error(`Jaeger did not start:\n${(await said).slice(-2000)}`, { cause });
  }
  return { otlpUrl, queryUrl: `http://127.0.0.1:${query}`, stop };
}

const say = (line: string) => process.stdout.write(`${line}\n`);
const otlpGiven = process.env["JAEGER_CONTRACT_OTLP_URL"];
const queryGiven = process.env["JAEGER_CONTRACT_QUERY_URL"];
if (otlpGiven !== undefined && queryGiven !== undefined) {
  process.exitCode = await runSuite(otlpGiven, queryGiven);
  say("tracing contract: checked the Jaeger of JAEGER_CONTRACT_OTLP_URL");
} else if (existsSync(run)) {
  const jaeger = await startJaeger();
  try {
    process.exitCode = await runSuite(jaeger.otlpUrl, jaeger.queryUrl);
    say("tracing contract: checked Jaeger 2.13.0");
  } finally {
    await jaeger.stop();
  }
} else {
  say(
    "tracing contract: NO real Jaeger was checked; name one in JAEGER_CONTRACT_OTLP_URL and JAEGER_CONTRACT_QUERY_URL",
  );
}

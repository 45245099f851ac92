import { buildCommand } from "@stricli/core";
import type { Ready } from "../app/up.ts";
import { type Context, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, hostFlag, portFlag } from "./flags.ts";

type Flags = EnvFileFlag & { host?: string; port?: number; welcome: boolean };

/** What is printed once everything answers. */
function greeting({ url, tracesUrl, migrations, welcomed, seconds }: Ready): string {
  return [
    `wordloom is up at ${url} (${seconds.toFixed(1)} s)`,
    ...(migrations > 0 ? [`  ${migrations} ${migrations === 1 ? "migration" : "migrations"} applied`] : []),
    ...(welcomed ? ['  the documentation is imported as the library "Welcome"'] : []),
    `  API      ${url}/api/v1`,
    `  health   ${url}/readyz`,
    `  metrics  ${url}/metrics`,
    ...(tracesUrl === null ? [] : [`  traces   ${tracesUrl}`]),
    "Try:",
    `  curl '${url}/api/v1/search?q=outbox'`,
    "Press Ctrl-C to stop.",
    "",
  ].join("\n");
}

export const up = buildCommand({
  docs: {
    brief: "Everything in one process: database, search engine, API, worker",
    fullDescription: [
      "Examples:",
      "  wordloom up",
      "  wordloom up --port 8080 --no-welcome",
      "  DATABASE_URL=postgresql://u:p@db/wordloom ELASTIC_URL=http://es:9200 wordloom up",
      "",
      "Without DATABASE_URL and ELASTIC_URL it runs the bundled PostgreSQL and search engine, with their data in WORDLOOM_DATA_DIR.",
      'Pending migrations are applied. A database that never held a library gets the documentation as the library "Welcome".',
      "Logs start at level warn; set LOG_LEVEL to see more. SIGTERM or Ctrl-C finishes the work in hand and stops everything, exit 0. A second one exits at once.",
    ].join("\n"),
  },
  parameters: {
    flags: {
      host: hostFlag,
      port: portFlag,
      welcome: { kind: "boolean", default: true, brief: "Import the documentation on the first start" },
      envFile: envFileFlag,
    },
  },
  async func(this: Context, flags: Flags) {
    const { up: run } = await import("../app/up.ts");
    const { stdout, stderr } = this.process;
    await run(readEnv(this, flags), {
      ...flags,
      signal: this.signal,
      slow: (step) => stderr.write(`${step} …\n`),
      ready: (ready) => stdout.write(greeting(ready)),
    });
  },
});

import { buildApplication, buildRouteMap, help, text_en, version as versionFlag } from "@stricli/core";
import { CommandError } from "../errors.ts";
import { describeError } from "../telemetry/log.ts";
import { version as stamped } from "../version.ts";
import { check } from "./check.ts";
import { collector } from "./collector.ts";
import { config } from "./config.ts";
import type { Context } from "./context.ts";
import { importCommand } from "./import.ts";
import { labs, labsCommands } from "./labs.ts";
import { migrate } from "./migrate.ts";
import { rebuild } from "./rebuild.ts";
import { replay } from "./replay.ts";
import { serve } from "./serve.ts";
import { up } from "./up.ts";
import { version } from "./version.ts";
import { work } from "./work.ts";

const routes = {
  up,
  serve,
  work,
  migrate,
  import: importCommand,
  collector,
  check,
  rebuild,
  replay,
  labs,
  config,
  version,
};

/** The names of all commands. */
export const commands: readonly string[] = Object.keys(routes);

/** Those of commands that have commands of their own. */
export const subcommands: ReadonlyMap<string, readonly string[]> = new Map([["labs", labsCommands]]);

const root = buildRouteMap({
  routes,
  docs: {
    brief: "The backend of a personal writing workspace",
    fullDescription: [
      "The backend of a personal writing workspace.",
      "",
      "Examples:",
      "  wordloom up                              everything in one process, nothing to install",
      "  wordloom import ~/notes --library Notes  read a folder of Markdown",
      "  wordloom config                          every setting and its value",
      "",
      "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 4 a server cannot be reached, 5 refused for safety,",
      "10 what was verified does not hold (`check`, `labs verify`).",
      "See `wordloom COMMAND --help` for more.",
    ].join("\n"),
  },
});

/** What people read: an expected failure is its message alone, anything else is a bug and shows where. Never what is in the documents. */
export function explain(error: unknown): string {
  if (error instanceof CommandError) return `wordloom: ${error.message}`;
  const lines = [];
  for (let e: ReturnType<typeof describeError> | undefined = describeError(error); e !== undefined; e = e.cause) {
    const { type, message, place, stack } = e;
    lines.push([`${type}: ${message}${place === undefined ? "" : ` (${place})`}`, stack].filter(Boolean).join("\n"));
  }
  return `wordloom: unexpected failure\n${lines.join("\ncaused by ")}`;
}

const formatting = {
  caseStyle: "convert-camel-to-kebab",
  onlyRequiredInUsageLine: false,
  useAliasInUsageLine: false,
} as const;

export const application = buildApplication<Context>(
  root,
  {
    name: "wordloom",
    scanner: { caseStyle: "allow-kebab-for-camel", allowArgumentEscapeSequence: true },
    documentation: { disableAnsiColor: true },
    localization: {
      text: {
        ...text_en,
        noCommandRegisteredForInput: (args) =>
          `wordloom: ${text_en.noCommandRegisteredForInput({ ...args, ansiColor: false })}`,
        exceptionWhileParsingArguments(error) {
          return `wordloom: ${text_en.exceptionWhileParsingArguments.call(this, error, false)}`;
        },
        exceptionWhileLoadingCommandFunction: explain,
        exceptionWhileRunningCommand: explain,
      },
    },
    determineExitCode: (error) => (error instanceof CommandError ? error.exitCode : 1),
  },
  {
    help: help({ brief: "Print this help", defaultForRouteMap: true, formatting }),
    version: versionFlag({ brief: "Print version information", info: { currentVersion: `wordloom ${stamped}` } }),
  },
);

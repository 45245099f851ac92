import { readFileSync } from "node:fs";
import { parseEnv } from "node:util";
import type { StricliProcess } from "@stricli/core";
import { former, unknownVariables } from "../config.ts";
import { CommandError } from "../errors.ts";

export type Env = Readonly<Record<string, string | undefined>>;

/** What a command gets from main: nothing in here reads the process itself. */
export type Context = {
  readonly process: StricliProcess & { readonly stderr: { readonly isTTY?: boolean } };
  readonly env: Env;
  /** Aborted by the first SIGINT or SIGTERM: finish what is in hand. */
  readonly signal: AbortSignal;
};

export type EnvFileFlag = { readonly envFile?: string };

/** `--env-file`, taken by every command that reads the configuration. */
export const envFileFlag = {
  kind: "parsed",
  parse: String,
  optional: true,
  placeholder: "file",
  brief: "NAME=value lines that override the environment",
} as const;

export const jsonFlag = {
  kind: "boolean",
  optional: true,
  withNegated: false,
  brief: "One JSON document on stdout",
} as const;

/** The environment of a command, overridden by the file of `--env-file`. Names likely typos on stderr. */
export function readEnv(context: Context, { envFile }: EnvFileFlag): Env {
  const env = envFile === undefined ? context.env : { ...context.env, ...readEnvFile(envFile) };
  for (const [name, why] of Object.entries(former))
    if (env[name] !== undefined) context.process.stderr.write(`wordloom: ${name} has no effect: ${why}\n`);
  for (const name of unknownVariables(env))
    context.process.stderr.write(`wordloom: ${name} is not a known variable; see \`wordloom config\`\n`);
  return env;
}

function readEnvFile(path: string): NodeJS.Dict<string> {
  try {
    return parseEnv(readFileSync(path, "utf8"));
  } catch (error) {
    throw new CommandError("usage", `--env-file: ${path} cannot be read; give a file of NAME=value lines`, {
      cause: error,
    });
  }
}

/** Reads a whole number within bounds from the command line. Throws for anything else. */
export const wholeNumber =
  (least: number, most: number) =>
  (input: string): number => {
    const n = /^\d+$/.test(input) && input.length <= String(most).length ? Number(input) : Number.NaN;
    if (!(n >= least && n <= most)) throw new Error(`expected a whole number from ${least} to ${most}`);
    return n;
  };

export const parsePort = wholeNumber(0, 65_535);

export const printJson = ({ process }: Context, value: unknown) =>
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);

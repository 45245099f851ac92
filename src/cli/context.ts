import { readFileSync } from "node:fs";
import { parseEnv } from "node:util";
import type { StricliProcess } from "@stricli/core";
import { former, unknownVariables } from "../config.ts";
import { CommandError } from "../errors.ts";
import type { EnvFileFlag } from "./flags.ts";

export type Env = Readonly<Record<string, string | undefined>>;

/** What a command gets from main: nothing in here reads the process itself. */
export type Context = {
  readonly process: StricliProcess & { readonly stderr: { readonly isTTY?: boolean } };
  readonly env: Env;
  /** Aborted by the first SIGINT or SIGTERM: finish what is in hand. */
  readonly signal: AbortSignal;
};

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

export const printJson = ({ process }: Context, value: unknown) =>
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);

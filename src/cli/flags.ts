/** The flags of all commands are made of these. `brief` is what `--help` says of one, `placeholder` what stands there for its value. */

export const optional = <T>(parse: (input: string) => T, placeholder: string, brief: string) =>
  ({ kind: "parsed", parse, optional: true, placeholder, brief }) as const;

export const required = <T>(parse: (input: string) => T, placeholder: string, brief: string) =>
  ({ kind: "parsed", parse, placeholder, brief }) as const;

export const withDefault = <T>(parse: (input: string) => T, fallback: string, placeholder: string, brief: string) =>
  ({ kind: "parsed", parse, default: fallback, placeholder, brief }) as const;

/** Off unless given. */
export const toggle = (brief: string) => ({ kind: "boolean", optional: true, withNegated: false, brief }) as const;

/** Reads a whole number within bounds. Throws for anything else. */
export const wholeNumber =
  (least: number, most: number) =>
  (input: string): number => {
    const n = /^\d+$/.test(input) && input.length <= String(most).length ? Number(input) : Number.NaN;
    if (!(n >= least && n <= most)) throw new Error(`expected a whole number from ${least} to ${most}`);
    return n;
  };

/** Reads a number of seconds, parts of one too. Throws for anything else. */
export const seconds =
  (most: number) =>
  (input: string): number => {
    const n = /^\d+(\.\d+)?$/.test(input) ? Number(input) : Number.NaN;
    if (!(n <= most)) throw new Error(`expected a number from 0 to ${most}`);
    return n;
  };

export const port = (brief: string) => optional(wholeNumber(0, 65_535), "port", brief);

export type EnvFileFlag = { readonly envFile?: string };

/** `--env-file`, which every command takes that reads the configuration. */
export const envFileFlag = optional(String, "file", "NAME=value lines that override the environment");

export const jsonFlag = toggle("One JSON document on stdout");

export const hostFlag = optional(String, "address", "Instead of API_HOST");
export const portFlag = port("Instead of API_PORT; 0 picks any free port");

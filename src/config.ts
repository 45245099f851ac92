import { homedir } from "node:os";
import type { Static, TSchema } from "@sinclair/typebox";
import { Value } from "@sinclair/typebox/value";
import { formats } from "./config/formats.ts";
import type { Extra } from "./config/kinds.ts";
import { schema } from "./config/schema.ts";
import { CommandError } from "./errors.ts";

export type Config = Readonly<Static<typeof schema>>;
type Name = keyof Config;

const yes = ["1", "true", "yes", "y", "on"];
const no = ["0", "false", "no", "n", "off"];

type Field = TSchema &
  Extra & {
    default?: string | number | boolean;
    enum?: string[];
    synonyms?: Readonly<Record<string, string>>;
    minimum?: number;
    maximum?: number;
    format?: keyof typeof formats;
  };
const fields = Object.entries(schema.properties) as [Name, Field][];

/** What a variable accepts, in words. */
function wanted(field: Field): string {
  if (field.enum) return `one of ${field.enum.join(", ")}`;
  if (field.format) return formats[field.format].wanted;
  switch (field["type"]) {
    case "integer":
      return `a whole number from ${field.minimum} to ${field.maximum}`;
    case "number":
      return `a number from ${field.minimum} to ${field.maximum}`;
    case "boolean":
      return "1 or 0 (also true/false, yes/no, on/off)";
    default:
      return `text matching ${field["pattern"]}`;
  }
}

/** The class of a value, never the value: it may be a secret in the wrong variable. */
function classOf(raw: string): string {
  if (raw.trim() === "") return "blank text";
  if (/^[+-]?\d+$/.test(raw)) return "a whole number";
  if (/^[+-]?\d*\.\d+$/.test(raw)) return "a decimal number";
  return `text of ${raw.length} characters`;
}

/** One of `values`, whatever its case, or the value it is a synonym of; anything else is returned unchanged, and refused. */
function chosen(values: readonly string[], synonyms: Field["synonyms"], raw: string): string {
  const word = raw.trim().toLowerCase();
  return synonyms?.[word] ?? values.find((v) => v === word) ?? raw;
}

function parse(field: Field, raw: string): unknown {
  switch (field["type"]) {
    case "integer":
    case "number":
      return /^[+-]?(\d+\.?\d*|\.\d+)$/.test(raw.trim()) ? Number(raw) : Number.NaN;
    case "boolean": {
      const word = raw.trim().toLowerCase();
      return yes.includes(word) ? true : no.includes(word) ? false : raw;
    }
    case "string":
      return field.enum ? chosen(field.enum, field.synonyms, raw) : raw.trim();
    default:
      return raw;
  }
}

/**
 * Reads the environment. An empty value counts as unset. Throws one CommandError (exit 2) that names every error at once: the variable,
 * the class of its value (never the value), and what was expected.
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const values: Record<string, unknown> = {};
  const faults: string[] = [];
  for (const [name, field] of fields) {
    const source = [name, field.alias].find((n) => n !== undefined && (env[n] ?? "") !== "");
    const raw = source === undefined ? undefined : env[source];
    const value = raw === undefined ? field.default : parse(field, raw);
    if (value === undefined) continue;
    if (Value.Check(field, value)) values[name] = value;
    else faults.push(`${source ?? name} is ${classOf(raw ?? "")}; expected ${wanted(field)}`);
  }
  if (faults.length > 0)
    throw new CommandError("usage", `bad configuration\n${faults.map((f) => `  ${f}`).join("\n")}`);
  return values as Config;
}

/** Variables of the operator documents that no longer have any effect. */
export const former: Readonly<Record<string, string>> = {
  OUTBOX_USE_ES_BULK: "everything is sent in bulk requests",
  OUTBOX_OP: "use the `--op` flag of `wordloom labs run`",
  OUTBOX_EVENT_VERSION: "`wordloom labs run` writes its own events",
  OUTBOX_CREATE_SEARCH_INDEX_ROW: "`wordloom labs run` writes its own rows",
  WORDLOOM_EVENT_BUS_TX_MODE: "a write and its events always share one transaction",
};

/** Variables that look like ours but are not: typos would otherwise be ignored silently. */
export function unknownVariables(env: Readonly<Record<string, string | undefined>>): string[] {
  const known = new Set(fields.flatMap(([name, { alias = name }]) => [name, alias]));
  return Object.keys(env).filter(
    (name) =>
      /^(WORDLOOM|OUTBOX|ELASTIC|CHRONICLE)_/.test(name) &&
      !/_TEST_|_CONTRACT_/.test(name) &&
      !known.has(name) &&
      !(name in former),
  );
}

export type Variable = {
  name: Name;
  alias: string | undefined;
  group: string;
  description: string;
  wanted: string;
  fallback: string;
  secret: boolean;
};

/** Every variable, for `--help`, the documentation and `wordloom config`. */
export const variables: readonly Variable[] = fields.map(([name, field]) => ({
  name,
  alias: field.alias,
  group: field.group,
  description: field.description ?? "",
  wanted: wanted(field),
  fallback:
    field.default === undefined
      ? ""
      : field["type"] === "boolean"
        ? field.default
          ? "1"
          : "0"
        : String(field.default),
  secret: field.secret === true,
}));

/** Where the embedded servers keep their data. */
export function dataDir(config: Config, env: Readonly<Record<string, string | undefined>>): string {
  if (config.WORDLOOM_DATA_DIR !== undefined) return config.WORDLOOM_DATA_DIR;
  if (process.getuid?.() === 0) return "/var/lib/wordloom";
  const home = env["XDG_DATA_HOME"];
  return home?.startsWith("/") ? `${home}/wordloom` : `${homedir()}/.local/share/wordloom`;
}

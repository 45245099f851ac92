import { buildCommand } from "@stricli/core";
import { former, readConfig, type Variable, variables } from "../config.ts";
import { type Context, type Env, printJson, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, jsonFlag, toggle } from "./flags.ts";

type Flags = EnvFileFlag & { json?: boolean; markdown?: boolean };

/**
 * A secret for people: a URL keeps its host and path, anything else shows only that it is set. So does a URL with an @ after its host: a password with a / or # that is not
 * percent-encoded reads as a path.
 */
function redact(value: string): string {
  const [, scheme, login, host, path = "", rest = ""] =
    /^([a-z][a-z0-9+.-]*:\/\/)(?:([^/?#]*)@)?([^/?#@]*)(\/[^?#]*)?(.*)$/is.exec(value) ?? [];
  if (scheme === undefined || host === undefined || `${path}${rest}`.includes("@")) return "(set)";
  return `${scheme}${login === undefined ? "" : "***@"}${host}${path}`;
}

function shown(variable: Variable, env: Env): { value: string | null; source: string } {
  const source = [variable.name, variable.alias].find((n) => n !== undefined && (env[n] ?? "") !== "");
  const value = source === undefined ? undefined : env[source];
  if (source === undefined || value === undefined) return { value: variable.fallback || null, source: "default" };
  return { value: variable.secret ? redact(value) : value, source };
}

function table(env: Env): string {
  const rows = variables.map((v) => ({ group: v.group, name: v.name, ...shown(v, env) }));
  const width = Math.max(...rows.map((r) => r.name.length));
  const lines: string[] = [];
  let group = "";
  for (const row of rows) {
    if (row.group !== group) lines.push(...(group === "" ? [] : [""]), row.group);
    group = row.group;
    lines.push(`  ${row.name.padEnd(width)}  ${row.source === "default" ? " " : "*"} ${row.value ?? "-"}`);
  }
  return `${lines.join("\n")}\n\n* set in the environment; - unset. Secrets are not shown.\n`;
}

const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");

/** docs/configuration.md. A test compares the file with it. */
export function configurationPage(): string {
  const lines = [
    "# Configuration",
    "",
    "Everything is set by environment variables, read once at start. `--env-file FILE` overrides it with a file of `NAME=value` lines. An empty",
    "value counts as unset. All errors are reported at once, each with the variable, the kind of value found (never the value itself) and what was expected;",
    "the exit code is then 2. `wordloom config` shows the effective values, without secrets.",
    "",
    "This page is generated: `wordloom config --markdown > docs/configuration.md`.",
  ];
  let group = "";
  for (const v of variables) {
    if (v.group !== group)
      lines.push("", `## ${v.group}`, "", "| Variable | Default | Accepts | Meaning |", "|---|---|---|---|");
    group = v.group;
    const accepts = v.wanted.startsWith("text matching") ? "text" : v.wanted;
    lines.push(
      `| \`${v.name}\` | ${v.fallback === "" ? "–" : `\`${v.fallback}\``} | ${cell(accepts)}${v.secret ? "; secret" : ""} | ${cell(v.description)} |`,
    );
  }
  lines.push("", "## Without effect", "", "Named in the operator documents. When one is set, start-up says so.", "");
  lines.push("| Variable | Because |", "|---|---|");
  for (const [name, why] of Object.entries(former)) lines.push(`| \`${name}\` | ${cell(why)} |`);
  return `${lines.join("\n")}\n`;
}

export const config = buildCommand({
  docs: {
    brief: "Show every variable and its effective value, without secrets",
    fullDescription: [
      "Examples:",
      "  wordloom config                          the values in effect here",
      "  wordloom config --env-file .env.test     the values that file would give",
      "  wordloom config --json",
      "",
      "The configuration is checked as in every other command: all errors are listed at once, exit code 2.",
    ].join("\n"),
  },
  parameters: {
    flags: {
      envFile: envFileFlag,
      json: jsonFlag,
      markdown: toggle("Print the reference page docs/configuration.md"),
    },
  },
  func(this: Context, flags: Flags) {
    if (flags.markdown) {
      this.process.stdout.write(configurationPage());
      return;
    }
    const env = readEnv(this, flags);
    readConfig(env);
    if (flags.json)
      printJson(
        this,
        variables.map((v) => ({ name: v.name, group: v.group, ...shown(v, env), secret: v.secret })),
      );
    else this.process.stdout.write(table(env));
  },
});

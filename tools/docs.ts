/**
 * Writes the reference pages that are made from the code: docs/api.md, docs/cli.md and docs/configuration.md. A test holds the files to it.
 *
 *   bun tools/docs.ts
 */
import { join } from "node:path";
import { run } from "@stricli/core";
import { application, commands, subcommands } from "../src/cli/application.ts";
import { configurationPage } from "../src/cli/config.ts";
import { apiPage } from "./docs-api.ts";

/** What a command prints on stdout. */
async function printed(args: readonly string[]): Promise<string> {
  const parts: string[] = [];
  const stream = { write: (part: string) => void parts.push(part) };
  const io = { stdout: stream, stderr: stream, env: {} };
  await run(application, args, { process: io, env: {}, signal: new AbortController().signal });
  return parts.join("").trim();
}

async function cliPage(): Promise<string> {
  const pages = [
    ["# Command line", "", "Generated from the commands: `bun tools/docs.ts`.", "", "```"].join("\n"),
    await printed(["--help"]),
    "```",
  ];
  for (const command of commands.flatMap((name) => [
    [name],
    ...(subcommands.get(name) ?? []).map((sub) => [name, sub]),
  ]))
    pages.push(`\n## wordloom ${command.join(" ")}\n\n\`\`\``, await printed([...command, "--help"]), "```");
  return `${pages.join("\n")}\n`;
}

/** The generated pages, by their path in the repository. */
export const pages = async (): Promise<ReadonlyMap<string, string>> =>
  new Map([
    ["docs/api.md", apiPage()],
    ["docs/cli.md", await cliPage()],
    ["docs/configuration.md", configurationPage()],
  ]);

if (import.meta.main)
  for (const [path, page] of await pages()) await Bun.write(join(import.meta.dir, "..", path), page);

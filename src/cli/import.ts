import { buildCommand } from "@stricli/core";
import { CommandError } from "../errors.ts";
import type { ImportReport } from "../library/import.ts";
import { type Context, printJson, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, jsonFlag, required } from "./flags.ts";
import { counted, progressBar } from "./progress.ts";

type Flags = EnvFileFlag & { library: string; json?: boolean };

/** `imported 112 files into "Rust" in 3.1 s: 112 books created, 5871 blocks created` */
function summary(library: string, report: ImportReport): string {
  const did = [
    [report.books_created, "book", "created"],
    [report.books_changed, "book", "changed"],
    [report.books_deleted, "book", "deleted"],
    [report.blocks_created, "block", "created"],
    [report.blocks_changed, "block", "changed"],
    [report.blocks_deleted, "block", "deleted"],
  ] as const;
  const parts = did.filter(([n]) => n > 0).map(([n, noun, verb]) => `${counted(n, noun)} ${verb}`);
  if (report.unchanged > 0) parts.push(`${counted(report.unchanged, "file")} unchanged`);
  const done = parts.length === 0 ? "nothing to do" : parts.join(", ");
  if (report.interrupted) return `stopped in "${library}" after ${report.seconds.toFixed(1)} s: ${done}`;
  return `imported ${counted(report.files, "file")} into "${library}" in ${report.seconds.toFixed(1)} s: ${done}`;
}

export const importCommand = buildCommand({
  docs: {
    brief: "Read a folder of Markdown into a library",
    fullDescription: [
      "Examples:",
      "  wordloom import ~/notes --library Notes",
      "  wordloom import docs --library Docs --json",
      "",
      "Every .md or .markdown file becomes a book (titled by its first heading), every top-level element a block, every folder a bookshelf. The library is",
      "created when missing. Import the folder again at any time: only what changed is written, and a book whose file is gone is deleted. Books that no",
      "import created are left alone. Symbolic links, node_modules and names that start with a dot are skipped.",
    ].join("\n"),
  },
  parameters: {
    positional: {
      kind: "tuple",
      parameters: [{ parse: String, placeholder: "dir", brief: "The folder" }],
    },
    flags: {
      library: required(String, "name", "The library to import into"),
      envFile: envFileFlag,
      json: jsonFlag,
    },
  },
  async func(this: Context, flags: Flags, folder: string) {
    const library = flags.library.trim();
    if (library === "" || Array.from(library).length > 255 || /\p{Cc}/u.test(library))
      throw new CommandError("usage", "--library must be a name of 1 to 255 characters, on one line");
    const { importFolder } = await import("../app/import.ts");
    const bar = progressBar(this, "files");
    const report = await importFolder(readEnv(this, flags), {
      folder,
      library,
      signal: this.signal,
      onProgress: bar.update,
    }).finally(bar.stop);
    if (flags.json) printJson(this, report);
    else this.process.stdout.write(`${summary(library, report)}\n`);
    if (report.failed.length > 0)
      throw new CommandError(
        "failed",
        `${counted(report.failed.length, "file")} skipped\n${report.failed.map((f) => `  ${f.path} ${f.reason}`).join("\n")}`,
      );
    if (report.interrupted) throw new CommandError("failed", "stopped before the end; run it again to continue");
  },
});

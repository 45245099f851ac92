import type { Dirent } from "node:fs";
import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { basename, join, posix } from "node:path";
import { CommandError, codeOf } from "../errors.ts";

/** Markdown files that belong together: a folder, or the documentation that the binary carries. */
export type MarkdownSource = {
  /** What the files at the top are called together. */
  readonly name: string;
  /** Relative paths with "/" between the parts, in the order of their names. */
  readonly files: readonly string[];
  /** Subfolders that could not be read: what they hold is unknown, not gone. */
  readonly unreadable: readonly Unreadable[];
  /** The text of one file, or why there is none. */
  readonly read: (file: string) => Promise<{ readonly text: string } | Unreadable>;
};

export type Unreadable = { readonly path: string; readonly reason: string };

const largestFileBytes = 16 * 1024 * 1024;

/** The database finds a book again by its path, and its index takes no longer ones. */
const longestPathBytes = 2000;

const reasonOf = (error: unknown, path = "") => {
  if (path.includes("\ufffd")) return "has a name that is not UTF-8; rename it";
  const code = codeOf(error);
  if (code === "EACCES" || code === "EPERM") return "cannot be read: permission denied";
  if (code === "ENOENT") return "disappeared while it was being read";
  return `cannot be read (${code ?? String(error)})`;
};

const byName = (a: Dirent, b: Dirent) => (a.name < b.name ? -1 : 1);

/**
 * Lists a folder's Markdown files (.md, .markdown), subfolders included. Names that start with a dot, node_modules and symbolic links are passed
 * over: a link could lead out of the folder, or round in a circle. Throws a CommandError when there is nothing to read.
 */
export async function openFolder(folder: string): Promise<MarkdownSource> {
  const found = await stat(folder).catch((error: unknown) => {
    throw new CommandError(
      "usage",
      `${folder} ${reasonOf(error).replace("disappeared while it was being read", "does not exist")}; give a folder of Markdown`,
      {
        cause: error,
      },
    );
  });
  if (!found.isDirectory())
    throw new CommandError("usage", `${folder} is not a folder; give the folder that holds the file`);
  const root = await realpath(folder);
  const files: string[] = [];
  const unreadable: Unreadable[] = [];
  const walk = async (path: string): Promise<void> => {
    let entries: Dirent[];
    try {
      entries = await readdir(join(root, path), { withFileTypes: true });
    } catch (error) {
      unreadable.push({ path: path === "" ? "." : path, reason: reasonOf(error, path) });
      return;
    }
    for (const entry of entries.sort(byName)) {
      if (entry.name.startsWith(".") || entry.name === "node_modules") continue;
      const inner = posix.join(path, entry.name);
      if (entry.isDirectory()) await walk(inner);
      else if (entry.isFile() && /\.(md|markdown)$/i.test(entry.name)) files.push(inner);
    }
  };
  await walk("");
  if (files.length === 0 && unreadable.length === 0)
    throw new CommandError("failed", `${folder} contains no Markdown (.md, .markdown); give a folder that does`);
  return { name: basename(root), files, unreadable, read: (file) => readText(root, file) };
}

async function readText(root: string, path: string): Promise<{ text: string } | Unreadable> {
  if (Buffer.byteLength(path) > longestPathBytes)
    return { path, reason: `has a path longer than ${longestPathBytes} bytes; shorten it` };
  let bytes: Buffer;
  try {
    if ((await stat(join(root, path))).size > largestFileBytes)
      return { path, reason: `is larger than ${largestFileBytes / 1024 / 1024} MB; split it` };
    bytes = await readFile(join(root, path));
  } catch (error) {
    return { path, reason: reasonOf(error, path) };
  }
  if (bytes.includes(0)) return { path, reason: "contains NUL bytes; it is not a text file" };
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes) };
  } catch {
    return { path, reason: "is not UTF-8; convert it, for example with iconv -t UTF-8" };
  }
}

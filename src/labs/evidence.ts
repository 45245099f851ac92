import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";
import { CommandError, codeOf } from "../errors.ts";

/**
 * What a drill leaves behind: one folder per run, `<outdir>/<scenario>/<run_id>/`, with the files that the operator documents name (Lab-S3A/2A/3A). `_manifest.json` comes
 * last and holds the SHA-256 of every other file: without it the run did not end, and what was changed afterwards does not fit it.
 */

const manifestName = "_manifest.json";
/** What verify writes itself. */
const resultName = "_result.json";

export type EvidenceFolder = {
  readonly dir: string;
  /** Writes a file below the folder; anything but text as JSON. */
  readonly write: (name: string, content: unknown) => void;
  /** Ends the run: whatever is there now is what is proven. */
  readonly seal: () => void;
};

const textOf = (content: unknown): string =>
  typeof content === "string" ? content : `${JSON.stringify(content, null, 2)}\n`;

/** The files of a run, without manifest and result. */
export function filesIn(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(dir, join(entry.parentPath, entry.name)).split(sep).join("/"))
    .filter((name) => name !== manifestName && name !== resultName)
    .toSorted();
}

const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

const digests = (dir: string): Record<string, string> =>
  Object.fromEntries(filesIn(dir).map((name) => [name, sha256(join(dir, name))]));

/** Makes the folder of a new run. Throws a CommandError when it is there already or cannot be made. */
export function createEvidence(outdir: string, scenario: string, runId: string): EvidenceFolder {
  const dir = join(outdir, scenario, runId);
  try {
    mkdirSync(join(outdir, scenario), { recursive: true });
    mkdirSync(dir);
  } catch (error) {
    const code = codeOf(error) ?? "unknown error";
    const why = code === "EEXIST" ? "there is a run of that name" : `it cannot be made (${code})`;
    throw new CommandError("failed", `${dir}: ${why}; give another --run-id or --outdir`, { cause: error });
  }
  return openFolder(dir);
}

/** The folder of an export, or of a run that is there already: it is made when something is written. */
export function openFolder(dir: string): EvidenceFolder {
  return {
    dir,
    write: (name, content) => {
      mkdirSync(dirname(join(dir, name)), { recursive: true });
      writeFileSync(join(dir, name), textOf(content));
    },
    seal: () => writeFileSync(join(dir, manifestName), textOf({ sha256: digests(dir) })),
  };
}

/** The runs of a scenario, the oldest first: their names are times. */
export function runsIn(outdir: string, scenario: string): string[] {
  try {
    return readdirSync(join(outdir, scenario), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name)
      .toSorted();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** The folder of a run, by default the newest. Throws a CommandError when there is none. */
export function findRun(outdir: string, scenario: string, runId: string | undefined): string {
  const run = runId ?? runsIn(outdir, scenario).at(-1);
  if (run === undefined || !runsIn(outdir, scenario).includes(run))
    throw new CommandError(
      "failed",
      `${join(outdir, scenario, runId ?? "")} contains no run; start one with \`wordloom labs run ${scenario}\`, or give its --outdir`,
    );
  return join(outdir, scenario, run);
}

/** Takes the oldest runs away until `keep` are left; returns the names of those that went. Throws a CommandError. */
export function pruneRuns(outdir: string, scenario: string, keep: number): string[] {
  const runs = runsIn(outdir, scenario);
  const old = runs.slice(0, Math.max(0, runs.length - keep));
  for (const run of old) {
    const dir = join(outdir, scenario, run);
    try {
      rmSync(dir, { recursive: true });
    } catch (error) {
      throw new CommandError("failed", `${dir} cannot be removed (${codeOf(error) ?? "unknown error"})`, {
        cause: error,
      });
    }
  }
  return old;
}

/** What does not fit the manifest: files that were changed, are gone or came later. Undefined when there is no manifest, so that the run did not end. */
export function tampered(dir: string): readonly string[] | undefined {
  const { sha256: digestsThen } = readRecord(dir, manifestName);
  if (typeof digestsThen !== "object" || digestsThen === null) return undefined;
  const sealed = new Map<string, unknown>(Object.entries(digestsThen));
  const found = new Map(Object.entries(digests(dir)));
  return [...new Set([...sealed.keys(), ...found.keys()])].filter((name) => sealed.get(name) !== found.get(name));
}

/** A file of a run; undefined when it is not there. */
export function readText(dir: string, name: string): string | undefined {
  try {
    return readFileSync(join(dir, name), "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function readJson(dir: string, name: string): unknown {
  try {
    return JSON.parse(readText(dir, name) ?? "") as unknown;
  } catch {
    return undefined;
  }
}

export const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/** What a JSON file of a run lists; nothing when it is not there, or is something else. */
export const readList = (dir: string, name: string): readonly unknown[] => listOf(readJson(dir, name));

/** The fields of a JSON file of a run; none when it is not there, or is something else. */
export function readRecord(dir: string, name: string): Readonly<Record<string, unknown>> {
  const value = readJson(dir, name);
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>)
    : {};
}

/** Keeps what verify found; false where the folder is not to be written. */
export function writeResult(dir: string, result: unknown): boolean {
  try {
    writeFileSync(join(dir, resultName), textOf(result));
    return true;
  } catch (error) {
    if (["EACCES", "EROFS", "EPERM"].includes(codeOf(error) ?? "")) return false;
    throw error;
  }
}

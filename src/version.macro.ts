import { spawnSync } from "node:child_process";
import { version } from "../package.json";

/** Read while bundling (and at load time under `bun run`): the binary knows what it was built from. */
export function readVersion(): { version: string; commit: string | null } {
  const git = spawnSync("git", ["rev-parse", "--short=12", "HEAD"], { cwd: import.meta.dir, encoding: "utf8" });
  return { version, commit: git.status === 0 ? git.stdout.trim() : null };
}

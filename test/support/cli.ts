import { join } from "node:path";

const root = join(import.meta.dir, "../..");

export type Ended = { readonly code: number; readonly out: string; readonly err: string };

/** The environment of a command under test: nothing of ours but what is given. */
const bare = { PATH: process.env["PATH"] ?? "", HOME: process.env["HOME"] ?? "/", NO_COLOR: "1" };

/** Starts `wordloom ARGS` from source, as a process of its own, with no terminal. */
export const start = (args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  Bun.spawn([process.execPath, join(root, "src/main.ts"), ...args], {
    cwd: root,
    env: { ...bare, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });

/** Runs `wordloom ARGS` to its end. */
export async function wordloom(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const child = start(args, env);
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, err };
}

export { freePort } from "../../src/labs/processes.ts";

import { join } from "node:path";
import { codeOf } from "../../src/errors.ts";

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

const given = new Set<number>();

/**
 * A port that was free a moment ago, never the same twice. Below those that the system gives to outgoing connections (from 32768 on Linux): one of these may take the port
 * of a worker before it can listen.
 */
export function freePort(): number {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 22_000);
    if (given.has(port)) continue;
    given.add(port);
    try {
      Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
      return port;
    } catch (error) {
      if (codeOf(error) !== "EADDRINUSE") throw error;
    }
  }
}

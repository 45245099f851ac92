import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { codeOf } from "../errors.ts";

/** A process of the real binary. */
export type Child = {
  readonly label: string;
  /** The last lines that it has said, for a message. */
  readonly lastLines: () => string;
  readonly kill: (signal: NodeJS.Signals) => void;
  /** The exit code, or null when a signal ended it. */
  readonly exited: Promise<number | null>;
  /** SIGTERM, and its exit code; SIGKILL when it takes longer than a worker may. */
  readonly stop: () => Promise<number | null>;
};

/** What `wordloom` is called from here: the compiled binary itself, or the source under the same Bun. */
const binary: readonly string[] = import.meta.url.includes("/$bunfs/")
  ? [process.execPath]
  : [process.execPath, fileURLToPath(new URL("../main.ts", import.meta.url))];

/** More than OUTBOX_SHUTDOWN_GRACE_SECONDS, which keeps its default. */
const killAfterMs = 30_000;

const running = new Set<Bun.Subprocess>();
// An immediate exit, on a second signal, leaves no child behind.
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** Starts `wordloom ARGS`, whose environment is `env` alone; what it says goes straight to the file `log`, so that it is there however anybody ends. */
export function startChild(
  label: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  log: string,
): Child {
  mkdirSync(dirname(log), { recursive: true });
  const file = openSync(log, "a");
  const child = Bun.spawn([...binary, ...args], { env: { ...env }, stdio: ["ignore", file, file] });
  closeSync(file);
  running.add(child);
  const exited = child.exited.then(() => {
    running.delete(child);
    return child.exitCode;
  });
  return {
    label,
    lastLines: () => readFileSync(log, "utf8").trimEnd().split("\n").slice(-3).join(" | "),
    kill: (signal) => child.kill(signal),
    exited,
    stop: async () => {
      child.kill("SIGTERM");
      const late = setTimeout(() => child.kill("SIGKILL"), killAfterMs);
      return await exited.finally(() => clearTimeout(late));
    },
  };
}

const given = new Set<number>();

/**
 * A port that was free a moment ago, never the same twice. Below those that the system gives to outgoing connections (from 32768 on Linux), one of which could take it
 * before the process that it is for.
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

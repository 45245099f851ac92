import { freePort, start } from "./cli.ts";
import { answers, until } from "./until.ts";

/** A real `wordloom` process under test, with what it said. */
export type Process = {
  readonly url: string;
  readonly pid: number;
  readonly lines: readonly string[];
  readonly kill: (signal: NodeJS.Signals) => void;
  /** The exit code, or null when a signal ended it; all that it said is in `lines` then. */
  readonly exited: Promise<number | null>;
};

async function read(stream: ReadableStream<Uint8Array>, lines: string[]): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    lines.push(...parts);
  }
  if (rest !== "") lines.push(rest);
}

async function launch(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  health: string,
): Promise<Process> {
  const child = start(args, { LOG_JSON: "1", WORDLOOM_ENV: "test", ...env });
  const lines: string[] = [];
  let ended = false;
  const exited = Promise.all([child.exited, read(child.stdout, lines), read(child.stderr, lines)]).then(() => {
    ended = true;
    return child.exitCode;
  });
  const ready = () => {
    if (ended) throw new Error(`wordloom ${args[0]} ended:\n${lines.slice(-20).join("\n")}`);
    return answers(health);
  };
  await until(`wordloom ${args[0]} at ${health}`, ready);
  return { url: new URL(health).origin, pid: child.pid, lines, kill: (signal) => child.kill(signal), exited };
}

/** `wordloom serve` on a free port, ready. */
export function startServe(env: Readonly<Record<string, string>>): Promise<Process> {
  const port = freePort();
  return launch(["serve", "--port", String(port)], env, `http://127.0.0.1:${port}/readyz`);
}

/** `wordloom up` on a free port, ready, with nothing imported. */
export function startUp(env: Readonly<Record<string, string>>): Promise<Process> {
  const port = freePort();
  return launch(["up", "--no-welcome", "--port", String(port)], env, `http://127.0.0.1:${port}/readyz`);
}

/** `wordloom collector` on a port, answering; it keeps nothing. */
export function startCollect(port: number): Promise<Process> {
  const args = ["collector", "--memory", "--port", String(port), "--query-port", "0"];
  return launch(args, {}, `http://127.0.0.1:${port}/api/services`);
}

/** `wordloom work` on free ports but for those of `env`, alive. `url` is where its health is; metrics are at `metricsUrl`. */
export async function startWork(
  env: Readonly<Record<string, string>>,
  args: readonly string[] = [],
): Promise<Process & { readonly metricsUrl: string }> {
  const metrics = env["OUTBOX_METRICS_PORT"] ?? String(freePort());
  const health = String(freePort());
  const ports = { OUTBOX_METRICS_PORT: metrics, OUTBOX_HTTP_PORT: health };
  const process = await launch(["work", ...args], { ...env, ...ports }, `http://127.0.0.1:${health}/livez`);
  return { ...process, metricsUrl: `http://127.0.0.1:${metrics}/metrics` };
}

import { join } from "node:path";
import { CommandError } from "../errors.ts";
import type { EvidenceFolder } from "./evidence.ts";
import { type Page, parsePage, sumOf } from "./metrics.ts";
import { type Child, freePort, startChild } from "./processes.ts";
import type { DrillOptions, World } from "./world.ts";

/** A worker process, alive. */
export type Worker = Child & {
  readonly metrics: () => Promise<Page>;
  /** Waits until a counter has come to `least`: a row says that it is done before the worker has counted it. */
  readonly counted: (name: string, labels: Readonly<Record<string, string>>, least?: number) => Promise<void>;
  /** Keeps the page as `_metrics/metrics-<name>.txt`. */
  readonly scrape: (name: string) => Promise<void>;
};

/** The processes of a drill: the API, and what the drill starts next to it. */
export type Crew = {
  /** Resolves when `holds` answers true; throws a CommandError when that takes longer than `--duration`, and when the drill shall end before its time. */
  readonly until: (what: string, holds: () => boolean | Promise<boolean>) => Promise<void>;
  /** The body of the API's answer; throws a CommandError when it is not a good one. */
  readonly ask: (method: string, path: string, body?: unknown) => Promise<string>;
  /** Starts `wordloom work`, alive when this returns, with variables of its own. */
  readonly worker: (label: string, env?: Readonly<Record<string, string>>, args?: readonly string[]) => Promise<Worker>;
  /** Runs another command of the binary to its end; its output is kept. Throws when it fails. */
  readonly command: (label: string, args: readonly string[]) => Promise<void>;
  /** Ends all of them. */
  readonly close: () => Promise<void>;
};

const pollMs = 50;
/** What starting a process may take, whatever else is waited for. */
const startSeconds = 60;
/** How long a worker runs whose drill was killed, and cannot end it any more. */
const orphanSeconds = 900;

/** Starts the API of a drill, and returns when it is ready. What is opened here ends with `close`. */
export async function openCrew(
  { env, signal }: World,
  runId: string,
  options: DrillOptions,
  evidence: EvidenceFolder,
): Promise<Crew> {
  const children: Child[] = [];
  const ports = [...options.metricsPorts];

  const stopIfAsked = () => {
    if (signal.aborted) throw new CommandError("failed", `stopped by a signal; partial evidence is in ${evidence.dir}`);
  };

  async function within(
    seconds: number,
    what: string,
    holds: () => boolean | Promise<boolean>,
    remedy: string,
  ): Promise<void> {
    const end = performance.now() + seconds * 1000;
    while (!(await holds())) {
      stopIfAsked();
      if (performance.now() > end)
        throw new CommandError(
          "failed",
          `waited ${seconds} s for ${what}; partial evidence is in ${evidence.dir}${remedy}`,
        );
      await Bun.sleep(pollMs);
    }
  }
  const until: Crew["until"] = (what, holds) =>
    within(options.duration, what, holds, "; --duration sets a longer limit");

  async function alive(child: Child, url: string): Promise<void> {
    let code: number | null | undefined;
    void child.exited.then((ended) => {
      code = ended;
    });
    const answers = async () => {
      if (code !== undefined)
        throw new CommandError("failed", `${child.label} ended with ${code}: ${child.lastLines()}`);
      return await fetch(url).then(
        ({ ok }) => ok,
        () => false,
      );
    };
    await within(startSeconds, `${child.label} to answer`, answers, "");
  }

  function start(label: string, args: readonly string[], own: Readonly<Record<string, string>>): Child {
    const child = startChild(label, args, { ...env, ...own }, join(evidence.dir, "_logs", `${label}-${runId}.log`));
    children.push(child);
    return child;
  }

  const apiPort = freePort();
  const apiUrl = `http://127.0.0.1:${apiPort}`;
  const api = start("api", ["serve", "--port", String(apiPort)], {});
  try {
    await alive(api, `${apiUrl}/readyz`);
  } catch (error) {
    await api.stop();
    throw error;
  }

  /** The body of a successful response from one of the drill's processes. */
  async function asked(url: string, request: RequestInit, { label, lastLines }: Child): Promise<string> {
    const timeout = AbortSignal.timeout(startSeconds * 1000);
    const response = await fetch(url, { ...request, signal: timeout }).catch((error: unknown) => {
      throw new CommandError("failed", `${label} does not answer; its last output: ${lastLines()}`, { cause: error });
    });
    if (!response.ok) throw new CommandError("failed", `${label} answered ${response.status}`);
    return await response.text();
  }

  const ask: Crew["ask"] = async (method, path, body) => {
    const request = {
      method,
      headers: { "x-request-id": runId },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    };
    return await asked(`${apiUrl}${path}`, request, api);
  };

  return {
    until,
    ask,
    worker: async (label, own = {}, args = []) => {
      const metricsPort = ports.shift() ?? freePort();
      const healthPort = freePort();
      const child = start(label, ["work", "--worker-id", `labs-${label}`, ...args], {
        OUTBOX_METRICS_PORT: String(metricsPort),
        OUTBOX_HTTP_PORT: String(healthPort),
        OUTBOX_RUN_SECONDS: String(orphanSeconds),
        ...own,
      });
      await alive(child, `http://127.0.0.1:${healthPort}/livez`);
      const ready = performance.now() + options.scrapeDelay * 1000;
      await within(options.scrapeDelay + 1, "the delay", () => performance.now() >= ready, "");
      const page = async () => await asked(`http://127.0.0.1:${metricsPort}/metrics`, {}, child);
      const metrics = async () => parsePage(await page());
      return {
        ...child,
        metrics,
        counted: (name, labels, least = 1) =>
          until(`${name} to come to ${least}`, async () => sumOf(await metrics(), name, labels) >= least),
        scrape: async (name) => evidence.write(`_metrics/metrics-${name}.txt`, await page()),
      };
    },
    command: async (label, args) => {
      const child = start(label, args, {});
      const code = await child.exited;
      if (code !== 0) throw new CommandError("failed", `wordloom ${args[0]} ended with ${code}: ${child.lastLines()}`);
    },
    close: async () => {
      await Promise.all(children.map((child) => child.stop()));
    },
  };
}

import { startThread } from "../thread.ts";

/** What the thread is told, and what it answers. */
export type Start = { readonly dataDir: string; readonly port: number };
export type Listening = { readonly port: number };

export interface Engine {
  /** Where it answers: loopback only, no credentials. */
  readonly url: string;
  /** Resolves when its thread is over, by `stop` or by an exception. */
  readonly ended: Promise<void>;
  /** Lets running requests end, closes the data and ends the thread. */
  stop(): Promise<void>;
}

/**
 * In a compiled binary every module has the binary's own URL, and the worker, an entry point of its own, lies where it
 * lies below `src`, the root of the build.
 */
const workerPath = import.meta.url.includes("/$bunfs/") ? "./embedded/elasticsearch/worker.ts" : "./worker.ts";

/**
 * Starts the embedded search engine on a thread of its own and resolves when it answers. Port 0 takes a free one.
 * Rejects with the reason, and `code` where there is one: EADDRINUSE for a port in use; DATA_IN_USE for another process on
 * the same `dataDir`; a folder that cannot be written.
 */
export async function startEngine({ dataDir, port }: { dataDir: string; port: number }): Promise<Engine> {
  const worker = new Worker(new URL(workerPath, import.meta.url).href);
  const { listening, ended, stop } = await startThread<Listening>(worker, "the embedded search engine", {
    dataDir,
    port,
  } satisfies Start);
  return { url: `http://127.0.0.1:${listening.port}`, ended, stop };
}

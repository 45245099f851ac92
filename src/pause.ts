import { setTimeout as sleep } from "node:timers/promises";

/** Waits for `ms`, or until `stop` fires. Never rejects: the caller checks `stop` itself. */
export async function pause(ms: number, stop: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, { signal: stop }).catch(() => undefined);
}

/**
 * Runs `work`, which never rejects, at once and then every `ms`, but not before the last run has ended. Keeps no process alive. Returns the way to stop, which resolves when what
 * is under way has ended.
 */
export function every(ms: number, work: () => Promise<unknown>): () => Promise<void> {
  let running: Promise<unknown> | undefined;
  const once = () => {
    running ??= work().finally(() => {
      running = undefined;
    });
  };
  once();
  const timer = setInterval(once, ms).unref();
  return async () => {
    clearInterval(timer);
    await running;
  };
}

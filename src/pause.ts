import { setTimeout as sleep } from "node:timers/promises";

/** Waits for `ms`, or until `stop` fires. Never rejects: whoever waits looks at `stop` for itself. */
export async function pause(ms: number, stop: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, { signal: stop }).catch(() => undefined);
}

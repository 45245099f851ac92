import { isContention, isMisfit, isUnavailable } from "../db/failure.ts";
import type { ClaimedEvent, Decision } from "../events.ts";
import { type Backoff, retryDelayMs } from "./backoff.ts";

/** The event itself is at fault, and trying again cannot help. */
export const failedForGood = (error: string): Decision => ({
  outcome: { kind: "fail", reason: "deterministic_exception", error, sent: true },
});

/** The cause is unknown: the event is tried again, but not for ever. */
export function failedOnce(event: ClaimedEvent, error: string, maxAttempts: number, backoff: Backoff): Decision {
  const reason = "unknown_exception";
  if (event.countedAttempts + 1 >= maxAttempts) return { outcome: { kind: "fail", reason, error, sent: true } };
  const delayMs = retryDelayMs(event.attempts, backoff);
  return { outcome: { kind: "retry", reason, error, delayMs, counted: true, sent: true } };
}

/** After this many single-event failures without one success, the fault is not the events'. */
const tooMany = 8;

/** The database fails for every event: a corrupt index, or a bug of ours. */
export class FailsForAll extends Error {
  constructor(cause: unknown) {
    super("Postgres fails for every event", { cause });
    this.name = "FailsForAll";
  }
}

/**
 * Runs `work` on all events and, where the database cannot do it, on halves of them, until the failing events are isolated and all others are done: 2⌈log₂ n⌉ + 1 runs
 * for one such event. `work` returns one answer per event, in order. Throws when the database is down or busy, or lacks something that every statement needs, and FailsForAll:
 * none of these is an event's fault.
 */
export async function isolating<T>(
  events: readonly ClaimedEvent[],
  work: (events: readonly ClaimedEvent[]) => Promise<readonly T[]>,
  blame: (event: ClaimedEvent, error: unknown) => T,
): Promise<readonly T[]> {
  const answers = new Map<ClaimedEvent, T>();
  const guilty = new Map<ClaimedEvent, unknown>();
  const tryOut = async (part: readonly ClaimedEvent[]): Promise<{ readonly error: unknown } | null> => {
    try {
      for (const [i, answer] of (await work(part)).entries()) {
        const event = part[i];
        if (event !== undefined) answers.set(event, answer);
      }
      return null;
    } catch (error) {
      if (isUnavailable(error) || isContention(error) || isMisfit(error)) throw error;
      return { error };
    }
  };
  let parts: (readonly ClaimedEvent[])[] = events.length === 0 ? [] : [events];
  while (parts.length > 0) {
    // One of each, before all are taken apart down to the last.
    if (parts.length >= tooMany && answers.size === 0) {
      let failed: { readonly error: unknown } | null = null;
      for (const part of parts.slice(0, tooMany)) {
        failed = await tryOut(part.slice(0, 1));
        if (failed === null) break;
      }
      if (failed !== null) throw new FailsForAll(failed.error);
    }
    const halves: (readonly ClaimedEvent[])[] = [];
    for (const part of parts) {
      const failed = await tryOut(part);
      const [first] = part;
      if (failed === null || first === undefined) continue;
      const middle = Math.ceil(part.length / 2);
      if (part.length === 1) guilty.set(first, failed.error);
      else halves.push(part.slice(0, middle), part.slice(middle));
    }
    parts = halves;
  }
  for (const [event, error] of guilty) answers.set(event, blame(event, error));
  return events.flatMap((event) => answers.get(event) ?? []);
}

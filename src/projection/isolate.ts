import { isContention, isMisfit, isUnavailable } from "../db/failure.ts";
import type { ClaimedEvent } from "../outbox/event.ts";
import { type Backoff, retryDelayMs } from "./backoff.ts";
import type { Decision } from "./projection.ts";

/** The event's own fault, and trying again cannot help. */
export const failedForGood = (error: string): Decision => ({
  outcome: { kind: "fail", reason: "deterministic_exception", error, sent: true },
});

/** Nobody knows what is wrong with the event: tried again, but not for ever. */
export function failedOnce(event: ClaimedEvent, error: string, maxAttempts: number, backoff: Backoff): Decision {
  const reason = "unknown_exception";
  if (event.countedAttempts + 1 >= maxAttempts) return { outcome: { kind: "fail", reason, error, sent: true } };
  const delayMs = retryDelayMs(event.attempts, backoff, Math.random());
  return { outcome: { kind: "retry", reason, error, delayMs, counted: true, sent: true } };
}

/**
 * Does with all events what the database must do for each, and where it cannot, with halves of them, until what it cannot do stands alone and all the others are done:
 * 2⌈log₂ n⌉ + 1 times for one such event. `work` answers in the order of its events. Throws where the database is away or busy, or does not have what every statement wants: that is nobody's fault.
 */
export async function isolating<T>(
  events: readonly ClaimedEvent[],
  work: (events: readonly ClaimedEvent[]) => Promise<readonly T[]>,
  blame: (event: ClaimedEvent, error: unknown) => T,
): Promise<readonly T[]> {
  const [only] = events;
  if (only === undefined) return [];
  try {
    return await work(events);
  } catch (error) {
    if (isUnavailable(error) || isContention(error) || isMisfit(error)) throw error;
    if (events.length === 1) return [blame(only, error)];
    const middle = Math.ceil(events.length / 2);
    const left = await isolating(events.slice(0, middle), work, blame);
    return [...left, ...(await isolating(events.slice(middle), work, blame))];
  }
}

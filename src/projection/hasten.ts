import type { Db } from "../db/client.ts";
import { failureReason } from "../db/failure.ts";
import { reasons } from "../events.ts";
import { hasten } from "../outbox/hasten.ts";
import type { Queue } from "../outbox/queue.ts";
import { pause } from "../pause.ts";
import type { WorkerSignals } from "../telemetry/worker-signals.ts";

/** Reasons for which an event waits for its target, not for itself. */
const targetReasons = reasons.filter((r) =>
  ["es_connect", "es_timeout", "es_429", "es_5xx", "es_404", "es_4xx", "es_unknown"].includes(r),
);

/** Rows that one statement makes due: however many wait, it ends before its timeout (measured: 0.2 s, and 15 s for a million). */
const atOnce = 10_000;
const betweenTriesMs = 1000;

/** Makes events that wait for the target due before their backoff of up to an hour has passed. */
export type Hasten = {
  /** One event: something for the probe to send. */
  readonly one: () => Promise<void>;
  /** All that waits when it is called, as the target is back. Tried again until it is done, the target `isAway` again, or `stop`. */
  readonly all: () => Promise<void>;
};

/** `found` is called when there is more to claim. Neither ever rejects. */
export function createHasten(
  db: Db,
  queue: Queue,
  signals: WorkerSignals,
  found: () => void,
  isAway: () => boolean,
  stop: AbortSignal,
): Hasten {
  /** At most `limit`, and none that was touched in the last `sinceMs`. Returns how many; null where it could not. */
  const due = async (limit: number, sinceMs: number): Promise<number | null> => {
    try {
      return await hasten(db, queue, targetReasons, limit, sinceMs);
    } catch (error) {
      signals.databaseFailed("hasten", failureReason(error), error);
      return null;
    }
  };
  let backSince = 0;
  let running = false;
  return {
    one: async () => {
      await due(1, 0);
    },
    all: async () => {
      backSince = performance.now();
      if (running) return;
      running = true;
      let total = 0;
      let limit = atOnce;
      while (!stop.aborted && !isAway()) {
        const count = await due(limit, performance.now() - backSince);
        if (count === null) {
          // It may have taken longer than a statement may.
          limit = Math.max(100, Math.floor(limit / 2));
          await pause(betweenTriesMs, stop);
          continue;
        }
        total += count;
        found();
        if (count < limit) break;
      }
      running = false;
      if (total > 0) signals.hastened(total);
    },
  };
}

import type { Db } from "../../db/client.ts";
import { isContention, nameFailure } from "../../db/failure.ts";
import type { ClaimedEvent, Decision } from "../../events.ts";
import { queues } from "../../outbox/queue.ts";
import { type Backoff, retryDelayMs } from "../backoff.ts";
import { failedForGood, failedOnce, isolating } from "../isolate.ts";
import type { Projection } from "../projection.ts";
import { writeEntries } from "./entries.ts";

export type ChronicleProjectionOptions = {
  readonly projectionVersion: number;
  readonly maxAttempts: number;
  readonly backoff: Backoff;
  /** Labs only: the event of this entity fails in this way. */
  readonly fault: { readonly kind: "transient" | "deterministic"; readonly entityId: string } | null;
};

/** Its target is the queue's own database: what cannot be written mostly can a moment later. */
const longestDelayMs = 10_000;

/** Chronicle events become chronicle entries, in the same database. Idempotent by event id; a new projection version rewrites. */
export function chronicleProjection(db: Db, options: ChronicleProjectionOptions): Projection {
  const { projectionVersion, maxAttempts, fault } = options;
  const backoff = { ...options.backoff, maxMs: Math.min(longestDelayMs, options.backoff.maxMs) };

  const again = (event: ClaimedEvent, error: string) => failedOnce(event, error, maxAttempts, backoff);

  function injected(event: ClaimedEvent): Decision | null {
    if (fault === null || fault.entityId !== event.entityId) return null;
    const error = `Injected ${fault.kind} failure (fault injection)`;
    return fault.kind === "deterministic" ? failedForGood(error) : again(event, error);
  }

  function decide(event: ClaimedEvent, written: "written" | "same" | undefined): Decision {
    if (written === undefined) return failedForGood(`the chronicle event ${event.entityId} does not exist`);
    return { outcome: { kind: "done", result: written === "written" ? "applied" : "superseded", sent: true } };
  }

  function busy(event: ClaimedEvent, error: string): Decision {
    const delayMs = retryDelayMs(event.attempts, backoff);
    return { outcome: { kind: "retry", reason: "db_contention", error, delayMs, counted: false, sent: true } };
  }

  async function write(events: readonly ClaimedEvent[]): Promise<Decision[]> {
    try {
      const ids = events.map((e) => e.entityId);
      const written = await writeEntries(db, ids, projectionVersion);
      return events.map((e) => decide(e, written.get(e.entityId)));
    } catch (error) {
      if (!isContention(error)) throw error;
      return events.map((e) => busy(e, nameFailure(error)));
    }
  }

  return {
    queue: queues.chronicle,
    // Nobody looks for what he has just written in a history; at 200 writes a second its batches took as much of the machine as those of the search.
    gatherMs: 25,
    prepare: (lease, signals) =>
      Promise.resolve({
        send: async () => {
          const decisions = new Map<bigint, Decision>();
          const sound: ClaimedEvent[] = [];
          for (const event of lease.events) {
            const broken =
              event.op === "upsert" ? injected(event) : failedForGood(`the chronicle knows no op "${event.op}"`);
            if (broken) decisions.set(event.id, broken);
            else sound.push(event);
          }
          // One event that the database cannot take must not fail its neighbours.
          const decided = await isolating(sound, write, (event, error) => {
            signals.blamed(event, error);
            return again(event, nameFailure(error));
          });
          for (const [i, decision] of decided.entries()) {
            const event = sound[i];
            if (event) decisions.set(event.id, decision);
          }
          return { decisions, health: { kind: "well" } };
        },
      }),
  };
}

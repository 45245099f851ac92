import type { Db } from "../../db/client.ts";
import { isContention, isUnavailable } from "../../db/failure.ts";
import { type ClaimedEvent, queues } from "../../outbox/event.ts";
import { type Backoff, retryDelayMs } from "../backoff.ts";
import type { Decision, Projection } from "../projection.ts";
import { writeEntries } from "./entries.ts";

export type ChronicleProjectionOptions = {
  readonly projectionVersion: number;
  readonly maxAttempts: number;
  readonly backoff: Backoff;
  /** Labs only: the event of this entity fails in this way. */
  readonly fault: { readonly kind: "transient" | "deterministic"; readonly entityId: string } | null;
};

/** Chronicle events become chronicle entries, in the same database. Idempotent by event id; a new projection version rewrites. */
export function chronicleProjection(db: Db, options: ChronicleProjectionOptions): Projection {
  const { projectionVersion, maxAttempts, backoff, fault } = options;

  const failed = (error: string): Decision => ({
    outcome: { kind: "fail", reason: "deterministic_exception", error, sent: true },
  });
  const again = (event: ClaimedEvent, reason: "unknown_exception" | "db_contention", error: string): Decision => {
    const counted = reason === "unknown_exception";
    if (counted && event.countedAttempts + 1 >= maxAttempts)
      return { outcome: { kind: "fail", reason, error, sent: true } };
    return {
      outcome: {
        kind: "retry",
        reason,
        error,
        delayMs: retryDelayMs(event.attempts, backoff, Math.random()),
        counted,
        sent: true,
      },
    };
  };

  function injected(event: ClaimedEvent): Decision | null {
    if (fault === null || fault.entityId !== event.entityId) return null;
    const error = `Injected ${fault.kind} failure (fault injection)`;
    return fault.kind === "deterministic" ? failed(error) : again(event, "unknown_exception", error);
  }

  function decide(event: ClaimedEvent, written: "written" | "same" | undefined): Decision {
    if (written === undefined) return failed(`the chronicle event ${event.entityId} does not exist`);
    return { outcome: { kind: "done", result: written === "written" ? "applied" : "superseded", sent: true } };
  }

  /** One event that the database cannot take must not fail its neighbours: after such an error each goes alone. */
  async function apply(events: readonly ClaimedEvent[]): Promise<[bigint, Decision][]> {
    try {
      const written = await writeEntries(
        db,
        events.map((e) => e.entityId),
        projectionVersion,
      );
      return events.map((e) => [e.id, decide(e, written.get(e.entityId))]);
    } catch (error) {
      if (isUnavailable(error)) throw error;
      const message = error instanceof Error ? error.message : "unknown error";
      if (isContention(error)) return events.map((e) => [e.id, again(e, "db_contention", message)]);
      const [only, ...more] = events;
      if (only !== undefined && more.length === 0) return [[only.id, again(only, "unknown_exception", message)]];
      const one = await Promise.all(events.map((e) => apply([e])));
      return one.flat();
    }
  }

  return {
    queue: queues.chronicle,
    // Nobody looks for what he has just written in a history; at 200 writes a second its batches took as much of the machine as those of the search.
    gatherMs: 25,
    prepare: (lease) =>
      Promise.resolve({
        send: async () => {
          const decisions = new Map<bigint, Decision>();
          const sound: ClaimedEvent[] = [];
          for (const event of lease.events) {
            const broken = event.op === "upsert" ? injected(event) : failed(`the chronicle knows no op "${event.op}"`);
            if (broken) decisions.set(event.id, broken);
            else sound.push(event);
          }
          for (const [id, decision] of sound.length > 0 ? await apply(sound) : []) decisions.set(id, decision);
          return { decisions, health: { kind: "well" } };
        },
      }),
  };
}

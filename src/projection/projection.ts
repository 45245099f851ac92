import type { Decision, Lease, Reason } from "../events.ts";
import type { Queue } from "../outbox/queue.ts";
import type { BatchSignals } from "../telemetry/batch-signals.ts";

/** How the target took a batch. `down`: none of it could be done, and it was not the events' fault. */
export type TargetHealth =
  | { readonly kind: "well" }
  | { readonly kind: "overloaded"; readonly retryAfterMs: number | null }
  | { readonly kind: "down"; readonly reason: Reason; readonly retryAfterMs: number | null };

export type Applied = { readonly decisions: ReadonlyMap<bigint, Decision>; readonly health: TargetHealth };

/** What holds for every request of a batch, also for those that come after the first. */
export type Pacing = {
  /** For how long the target wants to be left alone, in milliseconds; 0 when a request may go out. */
  readonly waitMs: () => number;
  /** What an answer may take until the request counts as unanswered, in milliseconds; null where its own deadline is all. */
  readonly answerMs: number | null;
  /** To be called when an answer comes after that, with the wait that it asks for. */
  readonly answeredLate: (retryAfterMs: number | null) => void;
};

/** A batch that is ready to be sent: everything that could be done while the request before it was on its way is done. */
export type Prepared =
  | { readonly send: (signal: AbortSignal, pacing: Pacing) => Promise<Applied> }
  /** Nothing of it can be sent: the target has no say in it, and nothing is learnt of the target. */
  | { readonly decided: ReadonlyMap<bigint, Decision> };

/** Where events of one queue go. `prepare` and `send` never throw for what the target does; they throw what the database throws. */
export type Projection = {
  readonly queue: Queue;
  /** How long the first event after a silence waits for others, in milliseconds: a batch of few costs as much as what is in it twenty times over. */
  readonly gatherMs: number;
  readonly prepare: (lease: Lease, signals: BatchSignals) => Promise<Prepared>;
};

import {
  type CircuitBreakerPolicy,
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  handleType,
  isBrokenCircuitError,
} from "cockatiel";
import type { Reason } from "../events.ts";
import type { WorkerSignals } from "../telemetry/worker-signals.ts";
import type { Applied, Pacing } from "./projection.ts";

/** How long an open breaker waits before it lets a probe through: well under the two seconds in which work must resume. */
const halfOpenAfterMs = 500;
/** What the answer to a probe may take: a request that was swallowed is not waited for while the target is back. Together with the above still under those two seconds. */
const probeAnswerMs = 1000;
/** Consecutive batches that fail as a whole until the target counts as down. */
const failuresToOpen = 2;

/** The target is down: no event of the batch could be done. Thrown only to inform the breaker. */
class TargetDown extends Error {
  readonly applied: Applied;
  constructor(applied: Applied) {
    super("the target is down");
    this.applied = applied;
  }
}

export type Pace = {
  /** Requests that may be in flight now. */
  readonly limit: () => number;
  /** Milliseconds until the next claim makes sense; 0 is now. */
  readonly waitMs: () => number;
  /** Whether the next batch is the probe of an open breaker: one batch, and nothing beside it. */
  readonly probing: () => boolean;
  readonly open: () => boolean;
  readonly reason: () => Reason | null;
  /** Sends a batch through the breaker; null when it is not let through, however long ago it was claimed, and nothing was sent. */
  readonly send: (work: (pacing: Pacing) => Promise<Applied>) => Promise<Applied | null>;
};

/**
 * Decides how hard to press the target. A circuit breaker (cockatiel) stops claiming when it is down and lets one probe through now and then; while it is merely overloaded
 * (429, 503), requests in flight go down by half and come back one by one (additive increase, multiplicative decrease). `closed` runs when the target is back.
 */
export function createPace(concurrency: number, signals: WorkerSignals, closed: () => void): Pace {
  let window = concurrency;
  let openedAt = Number.NEGATIVE_INFINITY;
  let notBefore = Number.NEGATIVE_INFINITY;
  let reason: Reason | null = null;
  /** A probe was answered after it had been given up: the target is slow, not away. */
  let slow = false;
  const breaker: CircuitBreakerPolicy = circuitBreaker(handleType(TargetDown), {
    // cockatiel waits by the wall clock: one that is set back would hold the breaker open. The waiting is done here, by the monotonic clock.
    halfOpenAfter: Number.NEGATIVE_INFINITY,
    breaker: new ConsecutiveBreaker(failuresToOpen),
  });
  breaker.onStateChange((state) => {
    if (state === CircuitState.Open) {
      openedAt = performance.now();
      signals.breakerTurned("open", reason);
    } else if (state === CircuitState.HalfOpen) {
      signals.breakerTurned("half_open", reason);
    } else if (state === CircuitState.Closed) {
      signals.breakerTurned("closed", reason);
      reason = null;
      closed();
    }
  });
  const resize = (to: number) => {
    window = Math.min(concurrency, Math.max(1, to));
    signals.inflightLimited(Math.floor(window));
  };
  // Of two answers the one that asks for more: a request that was on its way already may be answered with less.
  const keepWait = (retryAfterMs: number | null) => {
    if (retryAfterMs !== null) notBefore = Math.max(notBefore, performance.now() + retryAfterMs);
  };
  const heed = ({ health }: Applied) => {
    if (health.kind === "well") return resize(window + 1 / window);
    resize(window / 2);
    if (health.kind === "down") reason = health.reason;
    keepWait(health.retryAfterMs);
  };
  const askedForMs = () => Math.max(0, notBefore - performance.now());
  const waitMs = () => {
    const reopening = breaker.state === CircuitState.Open ? openedAt + halfOpenAfterMs - performance.now() : 0;
    return Math.max(reopening, askedForMs());
  };
  /** A probe gets its own short deadline, the one after a late answer all the time that a request may take. */
  const nextPacing = (): Pacing => {
    const hurried = breaker.state !== CircuitState.Closed && !slow;
    slow = false;
    return {
      waitMs: askedForMs,
      answerMs: hurried ? probeAnswerMs : null,
      answeredLate: (retryAfterMs) => {
        keepWait(retryAfterMs);
        slow = breaker.state !== CircuitState.Closed;
      },
    };
  };
  resize(concurrency);
  return {
    limit: () => (breaker.state === CircuitState.Closed ? Math.floor(window) : 1),
    waitMs,
    probing: () => breaker.state !== CircuitState.Closed,
    open: () => breaker.state === CircuitState.Open,
    reason: () => reason,
    send: async (work) => {
      if (waitMs() > 0) return null;
      const pacing = nextPacing();
      try {
        return await breaker.execute(async () => {
          const applied = await work(pacing);
          heed(applied);
          if (applied.health.kind === "down") throw new TargetDown(applied);
          return applied;
        });
      } catch (error) {
        if (error instanceof TargetDown) return error.applied;
        if (isBrokenCircuitError(error)) return null;
        throw error;
      }
    },
  };
}

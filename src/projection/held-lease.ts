import type { Db } from "../db/client.ts";
import { failureReason, isRolledBack } from "../db/failure.ts";
import type { Lease, Outcome } from "../events.ts";
import { renew } from "../outbox/claim.ts";
import type { Queue } from "../outbox/queue.ts";
import { settle } from "../outbox/settle.ts";
import type { WorkerSignals } from "../telemetry/worker-signals.ts";
import { retryDelayMs } from "./backoff.ts";

/** How long before the lease ends a request is cut off: the settle needs this. */
const marginMs = (leaseMs: number) => Math.min(2000, leaseMs * 0.15);

export type HeldLeaseOptions = {
  readonly leaseMs: number;
  readonly maxProcessingMs: number;
  /** Fires when the process leaves: nothing is tried again from then on. */
  readonly leave: AbortSignal;
};

export type HeldLease = {
  /** Fires before the lease can end, at once when rows of it are lost, and when the process leaves. */
  readonly signal: AbortSignal;
  /**
   * Settles, trying again for as long as the lease holds and nobody wants to leave: the target has the documents already, only the rows do not know yet. Returns the ids that
   * were still ours. Throws what the driver throws.
   */
  readonly settle: (outcomes: readonly (readonly [bigint, Outcome])[]) => Promise<Set<bigint>>;
  /** Renews it no more. */
  readonly letGo: () => void;
};

/** Keeps a lease alive while its batch is worked on. */
export function holdLease(
  db: Db,
  queue: Queue,
  lease: Lease,
  { leaseMs, maxProcessingMs, leave }: HeldLeaseOptions,
  signals: WorkerSignals,
): HeldLease {
  const ended = new AbortController();
  let state: "working" | "settling" | "over" = "working";
  let expiry: ReturnType<typeof setTimeout>;
  const arm = () => {
    clearTimeout(expiry);
    expiry = setTimeout(() => ended.abort(), Math.max(0, lease.expiresAt - marginMs(leaseMs) - performance.now()));
  };
  arm();
  const beat = setInterval(() => {
    renew(db, queue, lease, leaseMs, maxProcessingMs).then(
      (held) => {
        if (state === "over") return;
        if (held === lease.events.length) return arm();
        // Rows that are gone are not lost then: the settle may have them, and says itself which were not ours any more.
        if (state === "settling") return;
        signals.leaseNotRenewed(lease.claimBatchId, held, lease.events.length);
        ended.abort();
      },
      // The lease may still hold; the expiry timer decides.
      (error: unknown) => {
        if (state !== "over") signals.databaseFailed("renew", failureReason(error), error);
      },
    );
  }, leaseMs / 3);
  const letGo = () => {
    state = "over";
    clearInterval(beat);
    clearTimeout(expiry);
  };
  return {
    signal: AbortSignal.any([ended.signal, leave]),
    letGo,
    settle: async (outcomes) => {
      state = "settling";
      let again = false;
      for (let attempt = 0; ; attempt += 1) {
        try {
          const settled = await settle(db, queue, lease, outcomes, again);
          // What is settled has no lease any more.
          letGo();
          return settled;
        } catch (error) {
          again ||= !isRolledBack(error);
          signals.databaseFailed("settle", failureReason(error), error);
          const delay = retryDelayMs(attempt, { baseMs: 100, maxMs: 2000 });
          const inVain = failureReason(error) === "unknown_exception" || performance.now() + delay > lease.expiresAt;
          if (inVain || leave.aborted) throw error;
          await Bun.sleep(delay);
        }
      }
    },
  };
}

import type { EntityType } from "../db/schema.ts";
import { projections } from "../telemetry/keys.ts";

/**
 * The words of the queue. An event says which entity changed and to which version, never what it is now.
 *
 *            claim                 settle: done
 *   pending ───────▶ processing ─────────────────▶ done ──▶ pruned
 *      ▲  ▲             │  │ │
 *      │  └─ release ───┘  │ └── settle: fail ───▶ failed ──┐
 *      ├──── settle: retry ┘                                │
 *      ├──── reclaim (the lease ran out)                    │
 *      └──── replay (an operator, audited) ◀────────────────┘
 */

/** A projection with its queue. Names are those of the operator documents. */
export const queues = {
  search: { projection: projections.search, short: "search", table: "search_outbox_events" },
  chronicle: { projection: projections.chronicle, short: "chronicle", table: "chronicle_outbox_events" },
} as const;
export type Queue = (typeof queues)[keyof typeof queues];

export const ops = ["upsert", "delete"] as const;
export type Op = (typeof ops)[number];

/** What a queue's events are about: search speaks of entities, the chronicle of its own events. */
export type Subject = EntityType | "chronicle_event";

/** Why an event was retried or failed: a closed, low-cardinality list. The engine's own error type is a detail for logs and spans. */
export const reasons = [
  "es_connect",
  "es_timeout",
  "es_429",
  "es_5xx",
  "es_4xx",
  "es_404",
  "es_unknown",
  "db_contention",
  "db_unavailable",
  "version_anomaly",
  "deterministic_exception",
  "unknown_exception",
  "lease_expired",
] as const;
export type Reason = (typeof reasons)[number];

/** The W3C trace context of the request that caused an event, in canonical form. */
export type TraceContext = { readonly traceparent: string | null; readonly tracestate: string | null };

export type NewEvent = {
  readonly entityType: Subject;
  readonly entityId: string;
  readonly op: Op;
  readonly eventVersion: bigint;
};

/** An event under lease. `attempts` includes the send to come; `countedAttempts` are the failures so far that count towards the limit. */
export type ClaimedEvent = NewEvent &
  TraceContext & {
    readonly id: bigint;
    readonly attempts: number;
    readonly countedAttempts: number;
    /** Seconds from append to claim, by Postgres's clock. */
    readonly ageSeconds: number;
  };

/** A batch under lease. */
export type Lease = {
  /** The fence: every settle names it. */
  readonly claimBatchId: string;
  readonly owner: string;
  readonly events: readonly ClaimedEvent[];
  /** Monotonic milliseconds (performance.now) before which the lease holds for certain: counted from before the claim was sent. */
  expiresAt: number;
};

/** What a done event did to its target. */
export const results = ["applied", "noop", "superseded"] as const;
export type Result = (typeof results)[number];

/** What becomes of one claimed event. The projection decides it; settle() writes it. `sent` says whether the attempt was used. */
export type Outcome =
  | { readonly kind: "done"; readonly result: Result; readonly sent: boolean }
  | {
      readonly kind: "retry";
      readonly reason: Reason;
      readonly error: string;
      readonly delayMs: number;
      readonly counted: boolean;
      readonly sent: boolean;
    }
  | { readonly kind: "fail"; readonly reason: Reason; readonly error: string; readonly sent: boolean }
  | { readonly kind: "release" };

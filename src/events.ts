/** The vocabulary shared by the whole product: entities, events, reasons and outcomes. Types and lists, no code. */

export const entityTypes = ["library", "bookshelf", "book", "block", "tag"] as const;
export type EntityType = (typeof entityTypes)[number];

/** Every kind of event that the library writes, and the entity it is about. */
export const eventTypes = {
  library_created: "library",
  library_updated: "library",
  library_renamed: "library",
  library_deleted: "library",
  bookshelf_created: "bookshelf",
  bookshelf_updated: "bookshelf",
  bookshelf_renamed: "bookshelf",
  bookshelf_deleted: "bookshelf",
  book_created: "book",
  book_updated: "book",
  book_renamed: "book",
  book_moved: "book",
  book_deleted: "book",
  block_created: "block",
  block_updated: "block",
  block_type_changed: "block",
  block_soft_deleted: "block",
  tag_created: "tag",
  tag_updated: "tag",
  tag_renamed: "tag",
  tag_moved: "tag",
  tag_deleted: "tag",
} as const satisfies Record<string, EntityType>;

export type EventType = keyof typeof eventTypes;

/** How many events of each kind a committed write appended: `count` to the search queue, `chronicled` to the chronicle's. */
export type Appended = ReadonlyMap<EventType, { readonly count: number; readonly chronicled: number }>;

/** The projections, as metric labels and log fields name them. */
export const projections = { search: "search_index_to_elastic", chronicle: "chronicle_events_to_entries" } as const;

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

/** Why a step of a worker failed in Postgres. */
export const databaseReasons = ["db_contention", "db_unavailable", "unknown_exception"] as const satisfies Reason[];
export type DatabaseReason = (typeof databaseReasons)[number];

/** Failure classes of the item metric (operator documents, §6). */
export const failureClasses = ["429", "4xx", "5xx", "unknown", "other"] as const;
export type FailureClass = (typeof failureClasses)[number];

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

/** What becomes of one event, and what is told about it beside. */
export type Decision = {
  readonly outcome: Outcome;
  readonly errorType?: string | null;
  readonly noopReason?: "es_404";
  /** Of an event that is done. */
  readonly warning?: "shards_failed";
  /** What an experiment says of it. */
  readonly labs?: Readonly<Record<string, string | number | boolean>>;
};

/** Why a lease was taken away. */
export const reclaimReasons = ["lease_expired", "max_processing_seconds"] as const;

/** An event whose lease was taken away. */
export type Reclaimed = TraceContext & {
  readonly id: bigint;
  readonly entityType: string;
  readonly entityId: string;
  readonly op: Op;
  readonly eventVersion: bigint;
  readonly attempts: number;
  /** Who held it. */
  readonly from: string | null;
  readonly claimBatchId: string | null;
  readonly why: (typeof reclaimReasons)[number];
  /** failed: it was lost so often that it is taken for the cause. */
  readonly status: "pending" | "failed";
  readonly reclaimCount: number;
};

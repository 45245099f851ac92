import type { FailureClass, Reason } from "../events.ts";
import type { ItemAnswer, ItemResult, RequestFailure } from "../search/bulk.ts";

/** The item that was sent. */
type Item = { readonly sentAs: "index" | "delete"; readonly version: bigint };

/** What the verdict needs to know of the event. */
export type Judged = Item & { readonly countedAttempts: number };

export type Limits = { readonly maxAttempts: number; readonly terminalOnTransient: boolean };

/**
 * What becomes of an event, and why. `infrastructure`: the target, not the event, is at fault, so the projection should pause rather than go on to the next batch.
 * `errorType` is the engine's own word, for logs and spans.
 */
export type Verdict =
  | {
      readonly kind: "done";
      readonly result: "applied" | "superseded";
      /** Done, but an operator should know: the engine's side of it is not as it should be. */
      readonly warning?: "shards_failed";
    }
  | { readonly kind: "done"; readonly result: "noop"; readonly reason: "es_404" }
  | {
      readonly kind: "retry" | "fail";
      readonly reason: Reason;
      readonly counted: boolean;
      readonly infrastructure: boolean;
      readonly failureClass: FailureClass;
      readonly errorType: string | null;
      readonly error: string;
    };

type Done = Extract<Verdict, { kind: "done" }>;

/** What went wrong with an item, before its history is looked at. */
type Fault = {
  /**
   * Whose fault it is decides whether another try can help. Of the "target": every event would meet the same, so none is charged for it. Of the "event": never.
   * "unclear": for a limited number of times.
   */
  readonly of: "target" | "event" | "unclear";
  readonly reason: Reason;
  readonly failureClass: FailureClass;
  readonly errorType: string | null;
  readonly detail: string;
};

function fault(
  of: Fault["of"],
  reason: Reason,
  failureClass: FailureClass,
  { errorType = null, detail }: { readonly errorType?: string | null; readonly detail: string },
): Fault {
  return { of, reason, failureClass, errorType, detail };
}

function ofConflict(answer: ItemAnswer, item: Item): Done | Fault {
  // The target holds this version or a newer one: the work is done, by us earlier or by somebody else.
  if (answer.storedVersion !== null && answer.storedVersion >= item.version)
    return { kind: "done", result: "superseded" };
  // A conflict with a lower version cannot happen with external versions: somebody else writes to the index, or the engine's words have changed.
  const { errorType, detail } = answer;
  return fault("event", "version_anomaly", "4xx", { errorType, detail: `${detail} (ours: ${item.version})` });
}

function ofAnswer(answer: ItemAnswer, item: Item): Done | Fault {
  const { status, errorType, detail } = answer;
  if (status >= 200 && status < 300)
    return { kind: "done", result: "applied", ...(answer.failedShards > 0 ? { warning: "shards_failed" } : {}) };
  if (status === 409) return ofConflict(answer, item);
  if (status === 404) {
    // Absent is what a delete wants; an index that is absent is not.
    if (errorType === null && item.sentAs === "delete") return { kind: "done", result: "noop", reason: "es_404" };
    return fault("target", "es_404", "4xx", answer);
  }
  if (status === 429) return fault("target", "es_429", "429", answer);
  if (status === 408) return fault("target", "es_timeout", "5xx", answer);
  // Credentials, not the document.
  if (status === 401 || errorType === "security_exception") return fault("target", "es_4xx", "4xx", answer);
  if (status >= 400 && status < 500) return fault("event", "es_4xx", "4xx", answer);
  if (status >= 500 && status < 600) return fault("target", "es_5xx", "5xx", answer);
  return fault("unclear", "es_unknown", "other", { errorType, detail: `item status ${status} ${detail}` });
}

/**
 * True where the request failed because of what is in it: then halves are sent until the guilty document stands alone. A client and a server of versions that do not
 * understand each other are answered 400 too, whatever the document.
 */
export function isBisectable(failure: RequestFailure): boolean {
  if (failure.kind !== "http" || failure.errorType === "media_type_header_exception") return false;
  return failure.status === 400 || failure.status === 413;
}

/** True for a refusal in which Elasticsearch does not name an error, as it always does when it looks at a document. */
export function isStrangers(failure: RequestFailure): boolean {
  return failure.kind === "http" && failure.status === 400 && failure.errorType === null;
}

function ofFailure(failure: RequestFailure, singled: boolean): Fault {
  switch (failure.kind) {
    case "connect":
    case "lost":
      return fault("target", "es_connect", "5xx", failure);
    case "timeout":
      return fault("target", "es_timeout", "5xx", failure);
    case "unreadable":
      return fault("target", "es_unknown", "unknown", failure);
    case "http":
      break;
    default:
      return failure satisfies never;
  }
  const { status, errorType } = failure;
  // It comes from something before Elasticsearch, and says nothing of the documents, as any other answer of a proxy. Where others of the same request got through, this
  // document is what it does not let pass (a firewall that reads bodies).
  if (isStrangers(failure)) return fault(singled ? "unclear" : "target", "es_4xx", "4xx", failure);
  if (isBisectable(failure)) return fault("event", "es_4xx", "4xx", failure);
  if (status === 429) return fault("target", "es_429", "429", failure);
  if (status === 404) return fault("target", "es_404", "4xx", failure);
  if (status === 408) return fault("target", "es_timeout", "5xx", failure);
  if (status === 403 && errorType === "cluster_block_exception") return fault("event", "es_4xx", "4xx", failure);
  // Credentials, a proxy, a wrong method or media type.
  if (status >= 400 && status < 500) return fault("target", "es_4xx", "4xx", failure);
  if (status >= 500 && status < 600) return fault("target", "es_5xx", "5xx", failure);
  return fault("target", "es_unknown", "other", failure);
}

function found(result: ItemResult, item: Item): Done | Fault {
  switch (result.kind) {
    case "answered":
      return ofAnswer(result, item);
    case "failed":
      return ofFailure(result.failure, result.singled === true);
    case "unanswered":
      // It may have been applied; the version makes sending it again safe.
      return fault("target", "es_unknown", "unknown", { detail: "the engine's answer does not name this document" });
    default:
      return result satisfies never;
  }
}

/** How an item's failure is counted; null where it has not failed. */
export function failureClass(result: ItemResult, item: Item): FailureClass | null {
  const finding = found(result, item);
  return "kind" in finding ? null : finding.failureClass;
}

/** The decision table. A pure function: from the engine's answer for one item and the event's history to the outcome of the event. */
export function verdict(result: ItemResult, judged: Judged, limits: Limits): Verdict {
  const finding = found(result, judged);
  if ("kind" in finding) return finding;
  const { of, reason, failureClass, errorType, detail } = finding;
  const counted = of !== "target" || limits.terminalOnTransient;
  const spent = of === "event" || (counted && judged.countedAttempts + 1 >= limits.maxAttempts);
  return {
    kind: spent ? "fail" : "retry",
    reason,
    counted,
    infrastructure: of === "target",
    failureClass,
    errorType,
    error: errorType === null ? detail : `${errorType}: ${detail}`,
  };
}

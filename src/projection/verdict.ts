import type { Reason } from "../outbox/event.ts";
import type { ItemAnswer, ItemResult, RequestFailure } from "../search/bulk.ts";

/** What the verdict needs to know of the event. */
export type Judged = {
  readonly sentAs: "index" | "delete";
  readonly version: bigint;
  readonly countedAttempts: number;
};

export type Limits = { readonly maxAttempts: number; readonly terminalOnTransient: boolean };

/** Failure classes of the item metric (operator documents, §6). */
export type FailureClass = "429" | "4xx" | "5xx" | "unknown" | "other";

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

type Bad = Exclude<Verdict, { kind: "done" }>;

const describe = (errorType: string | null, detail: string) =>
  errorType === null ? detail : `${errorType}: ${detail}`;

function transient(
  judged: Judged,
  limits: Limits,
  reason: Reason,
  failureClass: FailureClass,
  errorType: string | null,
  detail: string,
): Bad {
  const counted = limits.terminalOnTransient;
  const kind = counted && judged.countedAttempts + 1 >= limits.maxAttempts ? "fail" : "retry";
  return { kind, reason, counted, infrastructure: true, failureClass, errorType, error: describe(errorType, detail) };
}

/** The event's own fault, and trying again cannot help. */
function terminal(reason: Reason, failureClass: FailureClass, errorType: string | null, detail: string): Bad {
  return {
    kind: "fail",
    reason,
    counted: true,
    infrastructure: false,
    failureClass,
    errorType,
    error: describe(errorType, detail),
  };
}

/** Nobody knows whose fault: tried again, but not for ever. */
function counted(
  judged: Judged,
  limits: Limits,
  reason: Reason,
  failureClass: FailureClass,
  errorType: string | null,
  detail: string,
): Bad {
  const kind = judged.countedAttempts + 1 >= limits.maxAttempts ? "fail" : "retry";
  return {
    kind,
    reason,
    counted: true,
    infrastructure: false,
    failureClass,
    errorType,
    error: describe(errorType, detail),
  };
}

function conflict(judged: Judged, answer: ItemAnswer): Verdict {
  // The target holds this version or a newer one: the work is done, by us earlier or by somebody else.
  if (answer.storedVersion !== null && answer.storedVersion >= judged.version)
    return { kind: "done", result: "superseded" };
  // A conflict with a lower version cannot happen with external versions: somebody else writes to the index, or the engine's words have changed.
  return terminal("version_anomaly", "4xx", answer.errorType, `${answer.detail} (ours: ${judged.version})`);
}

function ofAnswer(answer: ItemAnswer, judged: Judged, limits: Limits): Verdict {
  const { status, errorType, detail } = answer;
  if (status >= 200 && status < 300)
    return { kind: "done", result: "applied", ...(answer.failedShards > 0 ? { warning: "shards_failed" } : {}) };
  if (status === 409) return conflict(judged, answer);
  if (status === 404) {
    // Absent is what a delete wants; an index that is absent is not.
    if (errorType === null && judged.sentAs === "delete") return { kind: "done", result: "noop", reason: "es_404" };
    return transient(judged, limits, "es_404", "4xx", errorType, detail);
  }
  if (status === 429) return transient(judged, limits, "es_429", "429", errorType, detail);
  if (status === 408) return transient(judged, limits, "es_timeout", "5xx", errorType, detail);
  // Credentials, not the document.
  if (status === 401 || errorType === "security_exception")
    return transient(judged, limits, "es_4xx", "4xx", errorType, detail);
  if (status >= 400 && status < 500) return terminal("es_4xx", "4xx", errorType, detail);
  if (status >= 500 && status < 600) return transient(judged, limits, "es_5xx", "5xx", errorType, detail);
  return counted(judged, limits, "es_unknown", "other", errorType, `item status ${status} ${detail}`);
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

/**
 * A 400 that names no error of Elasticsearch's comes from something before it, and says nothing of the documents: tried again, whatever it says, as any other answer of a
 * proxy. Where others of the same request got through, this document is what it does not let pass (a firewall that reads bodies): that is tried again too, but not for ever.
 */
function ofStranger(detail: string, singled: boolean, judged: Judged, limits: Limits): Verdict {
  const judge = singled ? counted : transient;
  return judge(judged, limits, "es_4xx", "4xx", null, detail);
}

function ofFailure(failure: RequestFailure, singled: boolean, judged: Judged, limits: Limits): Verdict {
  switch (failure.kind) {
    case "connect":
    case "lost":
      return transient(judged, limits, "es_connect", "5xx", null, failure.detail);
    case "timeout":
      return transient(judged, limits, "es_timeout", "5xx", null, failure.detail);
    case "unreadable":
      return transient(judged, limits, "es_unknown", "unknown", null, failure.detail);
    case "http":
      break;
    default:
      return failure satisfies never;
  }
  const { status, errorType, detail } = failure;
  if (isStrangers(failure)) return ofStranger(detail, singled, judged, limits);
  if (isBisectable(failure)) return terminal("es_4xx", "4xx", errorType, detail);
  if (status === 429) return transient(judged, limits, "es_429", "429", errorType, detail);
  if (status === 404) return transient(judged, limits, "es_404", "4xx", errorType, detail);
  if (status === 408) return transient(judged, limits, "es_timeout", "5xx", errorType, detail);
  if (status === 403 && errorType === "cluster_block_exception") return terminal("es_4xx", "4xx", errorType, detail);
  // Credentials, a proxy, a wrong method or media type: every event would meet the same, so none is to blame.
  if (status >= 400 && status < 500) return transient(judged, limits, "es_4xx", "4xx", errorType, detail);
  if (status >= 500 && status < 600) return transient(judged, limits, "es_5xx", "5xx", errorType, detail);
  return transient(judged, limits, "es_unknown", "other", errorType, detail);
}

/** The decision table. Pure: what the engine said of one item, and the event's history, in; what becomes of the event, out. */
export function verdict(result: ItemResult, judged: Judged, limits: Limits): Verdict {
  switch (result.kind) {
    case "answered":
      return ofAnswer(result, judged, limits);
    case "failed":
      return ofFailure(result.failure, result.singled === true, judged, limits);
    case "unanswered":
      // It may have been applied; the version makes sending it again safe.
      return transient(
        judged,
        limits,
        "es_unknown",
        "unknown",
        null,
        "the engine's answer does not name this document",
      );
    default:
      return result satisfies never;
  }
}

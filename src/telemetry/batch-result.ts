import type { Attributes, AttributeValue } from "@opentelemetry/api";
import { type Ended, reasonOf } from "./event-signals.ts";

/** The common value; `mixed` when they differ, "none" when there are none. */
export function shared(values: readonly string[]): string {
  const [first = "none", ...rest] = new Set(values);
  return rest.length === 0 ? first : "mixed";
}

/** One decision for the whole batch. */
function resultOf(outcomes: readonly Ended[]): "ok" | "partial" | "retry" | "failed" {
  // Released is not done either: it will be tried again. What was skipped is not ours to call done.
  const bad = outcomes.filter(({ outcome }) => outcome.kind !== "done");
  if (bad.length === 0) return "ok";
  if (bad.length < outcomes.length) return "partial";
  const kinds = new Set(bad.map(({ outcome }) => outcome.kind));
  return kinds.has("fail") || (kinds.has("skipped") && kinds.size === 1) ? "failed" : "retry";
}

/** What the labs say of the batch: all that no two of its events say differently. */
function labsOf(outcomes: readonly Ended[]): Attributes {
  const said = new Map<string, Set<AttributeValue | undefined>>();
  for (const { labs } of outcomes)
    for (const [key, value] of Object.entries(labs ?? {})) said.set(key, (said.get(key) ?? new Set()).add(value));
  return Object.fromEntries([...said].flatMap(([key, values]) => (values.size === 1 ? [[key, [...values][0]]] : [])));
}

/** The reported end of a batch. */
export type BatchResult = {
  readonly said: {
    readonly result: "ok" | "partial" | "retry" | "failed";
    readonly reason: string;
    readonly ok_count: number;
    readonly retry_count: number;
    readonly failed_count: number;
    readonly success_count: number;
    readonly failure_count: number;
    readonly owner_mismatch: number;
  };
  /** For its span alone. */
  readonly labs: Attributes;
};

/** A batch's end, from what became of its events. `reason` is that of all that are not done. */
export function batchResult(outcomes: readonly Ended[]): BatchResult {
  const count = (kind: Ended["outcome"]["kind"]) => outcomes.filter(({ outcome }) => outcome.kind === kind).length;
  const done = count("done");
  const retries = count("retry");
  const failed = count("fail");
  return {
    said: {
      result: resultOf(outcomes),
      reason: shared(
        outcomes.flatMap((ended) => (ended.outcome.kind === "done" ? [] : [reasonOf(ended) ?? ended.outcome.kind])),
      ),
      ok_count: done,
      retry_count: retries,
      failed_count: failed,
      success_count: done,
      failure_count: retries + failed,
      owner_mismatch: count("skipped"),
    },
    labs: labsOf(outcomes),
  };
}

/** The end of a batch that could not be settled: the outcome of its events is unknown. */
export const notSettled: Omit<BatchResult["said"], "owner_mismatch"> = {
  result: "failed",
  reason: "unknown",
  ok_count: 0,
  retry_count: 0,
  failed_count: 0,
  success_count: 0,
  failure_count: 0,
};

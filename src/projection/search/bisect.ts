import type { BulkItem, ItemResult } from "../../search/bulk.ts";
import { isBisectable, isStrangers } from "../verdict.ts";

/** Sends a request and returns one result per item, in order. */
export type Send = (items: readonly BulkItem[]) => Promise<ItemResult[]>;

/**
 * Sends items; where the engine refuses the whole request for what is in it (400, 413), sends halves, until each guilty document is refused alone and all others
 * have landed. A guilty document is part of at most ⌈log₂ n⌉ + 1 requests. Gives up at the first failure that is not the documents': the rest shares it. What refuses
 * two documents alone and lets nothing pass does not look at documents, unless it is the engine: then no more halves are sent, 2⌈log₂ n⌉ + 1 requests in all.
 */
export async function sendBisecting(send: Send, items: readonly BulkItem[]): Promise<ItemResult[]> {
  let alone = 0;
  let passed = false;
  const halve = async (part: readonly BulkItem[]): Promise<ItemResult[]> => {
    const results = await send(part);
    passed ||= results.some((r) => r.kind === "answered");
    const failed = results.find((r) => r.kind === "failed");
    if (failed === undefined || !isBisectable(failed.failure)) return results;
    if (part.length === 1) {
      alone += 1;
      return [{ ...failed, singled: true }];
    }
    if (isStrangers(failed.failure) && alone > 1 && !passed) return results;
    const middle = Math.ceil(part.length / 2);
    const left = await halve(part.slice(0, middle));
    const rest = part.slice(middle);
    const outage = outageIn(left);
    // These were sent too, in the request that was refused.
    return [...left, ...(outage ? rest.map(() => outage) : await halve(rest))];
  };
  const results = await halve(items);
  return passed ? results : results.map((r) => (r.kind === "failed" ? { kind: r.kind, failure: r.failure } : r));
}

/** The failure that was not the documents', if there was one: what comes after it would meet the same. */
export function outageIn(results: readonly ItemResult[]): (ItemResult & { kind: "failed" }) | undefined {
  for (const r of results) if (r.kind === "failed" && !isBisectable(r.failure)) return r;
  return undefined;
}

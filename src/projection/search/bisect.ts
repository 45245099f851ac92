import type { BulkItem, ItemResult } from "../../search/bulk.ts";
import { isBisectable } from "../verdict.ts";

/** Sends a request and returns one result per item, in order. */
export type Send = (items: readonly BulkItem[]) => Promise<ItemResult[]>;

/**
 * Sends items; where the engine refuses the whole request for what is in it (400, 413), sends halves, until each guilty document is refused alone and all others
 * have landed. A guilty document is part of at most ⌈log₂ n⌉ + 1 requests. Gives up at the first failure that is not the documents': the rest shares it.
 */
export async function sendBisecting(send: Send, items: readonly BulkItem[]): Promise<ItemResult[]> {
  const results = await send(items);
  const [first] = results;
  if (items.length < 2 || first?.kind !== "failed" || !isBisectable(first.failure)) return results;
  const middle = Math.ceil(items.length / 2);
  const left = await sendBisecting(send, items.slice(0, middle));
  const rest = items.slice(middle);
  const outage = outageIn(left);
  // These were sent too, in the request that was refused.
  return [...left, ...(outage ? rest.map(() => outage) : await sendBisecting(send, rest))];
}

/** The failure that was not the documents', if there was one: what comes after it would meet the same. */
export function outageIn(results: readonly ItemResult[]): (ItemResult & { kind: "failed" }) | undefined {
  for (const r of results) if (r.kind === "failed" && !isBisectable(r.failure)) return r;
  return undefined;
}

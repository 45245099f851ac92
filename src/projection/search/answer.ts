import type { BulkItem, ItemResult } from "../../search/bulk.ts";
import type { Pacing } from "../projection.ts";

/** How long the engine asks us to wait, in milliseconds; null when it does not. */
export function retryAfter(results: readonly ItemResult[]): number | null {
  const waits = results.flatMap((r) =>
    r.kind === "failed" && r.failure.kind === "http" ? (r.failure.retryAfterMs ?? []) : [],
  );
  return waits.length === 0 ? null : Math.max(...waits);
}

/** Whether anything answered at all. */
const isAnswered = (results: readonly ItemResult[]) =>
  results.some((r) => r.kind !== "failed" || r.failure.kind === "http" || r.failure.kind === "unreadable");

/**
 * The answer to a request, or a timeout of all its items when it takes longer than the pace allows. The request is not cut off then: that it is answered after all is how
 * a slow engine is told from one that is away.
 */
export async function answerInTime(
  answer: Promise<ItemResult[]>,
  items: readonly BulkItem[],
  { answerMs, answeredLate }: Pacing,
): Promise<ItemResult[]> {
  if (answerMs === null) return await answer;
  const inTime = await Promise.race([answer, Bun.sleep(answerMs).then(() => null)]);
  if (inTime !== null) return inTime;
  answer.then(
    (late) => {
      if (isAnswered(late)) answeredLate(retryAfter(late));
    },
    () => undefined,
  );
  return items.map(() => ({
    kind: "failed",
    failure: { kind: "timeout", detail: `no answer to a probe within ${answerMs} ms` },
  }));
}

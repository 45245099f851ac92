import type { ClaimedEvent } from "../../events.ts";
import { type BulkItem, bulkBody, type ItemResult, itemBytes } from "../../search/bulk.ts";

/** An event and the document that speaks for it. */
export type Sent = { readonly event: ClaimedEvent; readonly item: BulkItem };
export type Request = { readonly sent: readonly Sent[]; readonly body: string };

/** Cuts what is sent into parts of at most `maxBytes`; a document that is larger by itself goes alone. */
export function parts<S extends { readonly item: BulkItem }>(sent: readonly S[], maxBytes: number): S[][] {
  const cut: S[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const one of sent) {
    const size = itemBytes(one.item);
    if (bytes + size > maxBytes) {
      cut.push([]);
      bytes = 0;
    }
    bytes += size;
    cut.at(-1)?.push(one);
  }
  return cut;
}

/** Cuts a batch into requests of at most `maxBytes`. */
export function cut(sent: readonly Sent[], maxBytes: number): Request[] {
  return parts(sent, maxBytes).map((request) => ({ sent: request, body: bulkBody(request.map((s) => s.item)) }));
}

/** How large a request may be now, in bytes. */
export type SizeLimit = { readonly bytes: () => number; readonly heed: (results: readonly ItemResult[]) => void };

const smallest = 65_536;
/** Batches until a limit that was halved has come back. */
const stepsBack = 16;

/** Halves when the engine has no memory for a request (429 circuit_breaking_exception), grows back step by step. Never above `maxBytes`. */
export function createSizeLimit(maxBytes: number): SizeLimit {
  let bytes = maxBytes;
  const isTooMuch = (r: ItemResult) =>
    r.kind === "failed" &&
    r.failure.kind === "http" &&
    r.failure.status === 429 &&
    r.failure.errorType === "circuit_breaking_exception";
  return {
    bytes: () => bytes,
    heed: (results) => {
      const next = results.some(isTooMuch) ? bytes / 2 : bytes + maxBytes / stepsBack;
      bytes = Math.min(maxBytes, Math.max(smallest, next));
    },
  };
}

import type { ItemResult } from "../../src/search/bulk.ts";

/** An engine's answer for one item. */
export const answered = (
  status: number,
  errorType: string | null = null,
  storedVersion: bigint | null = null,
): ItemResult => ({
  kind: "answered",
  status,
  errorType,
  detail: "detail",
  storedVersion,
  failedShards: 0,
});

/** The item is written. */
export const landed = answered(201);

export type Backoff = { readonly baseMs: number; readonly maxMs: number };

/**
 * The delay before attempt `attempts + 1`, in milliseconds: doubling from the base up to the maximum, then spread over the upper half of it, so that
 * events which failed together do not come back together. `random` is in [0, 1).
 */
export function retryDelayMs(attempts: number, { baseMs, maxMs }: Backoff, random = Math.random()): number {
  const full = Math.min(maxMs, baseMs * 2 ** Math.min(30, Math.max(0, attempts)));
  return full / 2 + (full / 2) * random;
}

/**
 * Where the fresh lane starts to look. Ids are handed out at insert and seen at commit, so a slow transaction's rows appear below ids that were claimed long ago;
 * yet scanning from the start every time meets every dead row that some other transaction pins (measured: 2.5 times slower). So the floor is the first id of the
 * last claim while there is a backlog, an older one once it is drained, and nothing at all now and then. What such a reset finds below pulls the floor down with it:
 * a slow transaction may leave more rows than one claim takes.
 */
type Floor = {
  readonly next: (now: number) => bigint;
  /** `now` is when the claim was sent, `tookMs` until it was answered. */
  readonly claimed: (now: number, tookMs: number, firstFresh: bigint | undefined, full: boolean) => void;
};

/** Rows that commit within this time of their insert are never below the relaxed floor. */
const relaxedMs = 2000;
/**
 * How long a row of a slower transaction waits. Longer where a look from the start takes long, because it meets all that a pinned xmin keeps: it gets a fiftieth of the time. But
 * not for ever: it may have been slow for another reason, such as a lock.
 */
const resetMs = 3000;
const resetShare = 50;
const longestResetMs = 30_000;

export function createFloor(): Floor {
  let tight = 0n;
  let relaxed = 0n;
  let upcoming = 0n;
  let turnedAt = Number.NEGATIVE_INFINITY;
  let resetAt = Number.NEGATIVE_INFINITY;
  let resetEveryMs = resetMs;
  let backlog = false;
  return {
    next: (now) => {
      if (now - resetAt >= resetEveryMs) {
        resetAt = now;
        return 0n;
      }
      return backlog ? tight : relaxed;
    },
    claimed: (now, tookMs, firstFresh, full) => {
      backlog = full;
      if (now === resetAt) resetEveryMs = Math.min(longestResetMs, Math.max(resetMs, resetShare * tookMs));
      if (firstFresh !== undefined) {
        tight = firstFresh;
        if (firstFresh < relaxed) relaxed = firstFresh;
        if (firstFresh < upcoming) upcoming = firstFresh;
      }
      if (now - turnedAt >= relaxedMs) {
        relaxed = upcoming;
        upcoming = tight;
        turnedAt = now;
      }
    },
  };
}

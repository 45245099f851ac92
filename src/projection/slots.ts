import type { Turn } from "./batch.ts";
import { createLatch, type Latch } from "./latch.ts";
import type { Pace } from "./pace.ts";

/** Batches that may be in their settle while others are on their way. */
const settling = 2;

/** One batch's place. */
export type Slot = {
  /** Waits for the right to send. */
  readonly turn: Turn;
  /** The batch has ended. */
  readonly leave: () => void;
};

/** Who may send, and whether another batch may be claimed. */
export type Slots = {
  /** For a batch that was claimed. */
  readonly enter: () => Slot;
  /**
   * Whether another batch may be claimed: when it can be sent at once, or when there is such a `backlog` that it should be built ahead. Beside requests on their way only when
   * there is a backlog, or when they take so long that it is not worth waiting for them.
   */
  readonly free: (backlog: boolean) => boolean;
  /** Milliseconds after which patience with the requests on their way may be over, `longest` at most. */
  readonly patienceMs: (longest: number) => number;
  /** Rings when a slot may have become free. */
  readonly room: Latch;
  /** Everyone who waits looks again. */
  readonly wake: () => void;
};

/** `stop` ends every wait for a turn: what was not sent then is given back. `longestWaitMs`: the pace may change without a ring. */
export function createSlots(pace: Pace, patienceMs: number, longestWaitMs: number, stop: AbortSignal): Slots {
  const room = createLatch();
  const turns = createLatch();
  let inHand = 0;
  let sending = 0;
  let waiting = 0;
  let enteredLast = 0;

  function enter(): Slot {
    inHand += 1;
    waiting += 1;
    enteredLast = performance.now();
    // A batch that could not be prepared never comes to its turn.
    let queued = true;
    const leaveQueue = () => {
      if (queued) waiting -= 1;
      queued = false;
    };
    return {
      turn: async () => {
        while (sending >= pace.limit() && !stop.aborted) await turns.wait(longestWaitMs);
        leaveQueue();
        if (stop.aborted) return { granted: false, done: () => undefined };
        sending += 1;
        room.ring();
        return {
          granted: true,
          done: () => {
            sending -= 1;
            turns.ring();
            room.ring();
          },
        };
      },
      leave: () => {
        inHand -= 1;
        leaveQueue();
        room.ring();
      },
    };
  }

  return {
    enter,
    free: (backlog) => {
      if (inHand >= pace.limit() + 1 + settling) return false;
      if (sending + waiting === 0) return true;
      const mayJoin = backlog || performance.now() >= enteredLast + patienceMs;
      return (sending + waiting < pace.limit() && mayJoin) || (backlog && waiting === 0 && !pace.probing());
    },
    patienceMs: (longest) => (sending + waiting < pace.limit() ? Math.min(longest, patienceMs) : longest),
    room,
    wake: () => {
      room.ring();
      turns.ring();
    },
  };
}

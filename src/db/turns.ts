/** Work that needs a connection of a pool: a statement of its own, or a transaction from BEGIN to COMMIT. */
export type Turns = {
  /**
   * Runs `work` as soon as it is its turn, first come first served. Rejects with what `work` rejects with, or with code POOL_TIMEOUT when its turn did not come in time;
   * `work` has not begun then.
   */
  readonly take: <T>(work: () => Promise<T>) => Promise<T>;
  /** How many have their turn. */
  readonly used: () => number;
  /** How many wait for it. */
  readonly pending: () => number;
};

/** Why work has not begun: isUnavailable. */
export const noConnection = (waitedMs: number): Error =>
  Object.assign(new Error(`no connection of the pool was free for ${waitedMs} ms`), { code: "POOL_TIMEOUT" });

/**
 * Lets `max` through at once. The driver would keep the others in a line of its own, without a deadline, or send them behind a stranger's statement that takes its time.
 */
export function openTurns(max: number, timeoutMs: number): Turns {
  const line = new Set<() => void>();
  let used = 0;

  const wait = () =>
    new Promise<void>((resolve, reject) => {
      const go = () => {
        clearTimeout(timer);
        line.delete(go);
        resolve();
      };
      const timer = setTimeout(() => {
        line.delete(go);
        reject(noConnection(timeoutMs));
      }, timeoutMs);
      line.add(go);
    });

  return {
    take: async (work) => {
      if (used < max) used += 1;
      // Hand over directly, so that no newcomer is served first.
      else await wait();
      try {
        return await work();
      } finally {
        const [next] = line;
        if (next) next();
        else used -= 1;
      }
    },
    used: () => used,
    pending: () => line.size,
  };
}

/** A bell that remembers: rung while nobody waits, the next wait ends at once. */
export type Latch = {
  readonly ring: () => void;
  /** Resolves when the bell rings, at the latest after `ms`. */
  readonly wait: (ms: number) => Promise<void>;
};

export function createLatch(): Latch {
  const waiting = new Set<() => void>();
  let rung = false;
  return {
    ring: () => {
      if (waiting.size === 0) rung = true;
      for (const wake of waiting) wake();
      waiting.clear();
    },
    wait: async (ms) => {
      if (rung) {
        rung = false;
        return;
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, ms);
      waiting.add(resolve);
      await promise;
      clearTimeout(timer);
      waiting.delete(resolve);
    },
  };
}

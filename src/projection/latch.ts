/** A bell that remembers: if it is rung while nobody waits, the next wait ends at once. */
export type Latch = {
  readonly ring: () => void;
  /** Resolves when the bell rings, at the latest after `ms`; says whether it rang. */
  readonly wait: (ms: number) => Promise<boolean>;
  /** Forgets that it rang. */
  readonly hush: () => void;
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
        return true;
      }
      const { promise, resolve } = Promise.withResolvers<boolean>();
      const timer = setTimeout(resolve, Math.max(0, ms), false);
      const ringing = () => resolve(true);
      waiting.add(ringing);
      const rang = await promise;
      clearTimeout(timer);
      waiting.delete(ringing);
      return rang;
    },
    hush: () => {
      rung = false;
    },
  };
}

import { AsyncLocalStorage } from "node:async_hooks";
import { type InContext, onBehalfOf } from "./callers.ts";
import { isRolledBack } from "./failure.ts";
import { noConnection } from "./turns.ts";

export type GatherOptions = {
  /** Maximum number of items in a batch. */
  readonly most: number;
  /** Maximum number of batches in flight: further items wait, and go together. */
  readonly atOnce: number;
  /** How long an item may wait for its turn. After that it fails with code POOL_TIMEOUT, without having been started. */
  readonly timeoutMs: number;
};

/** Returns the result of each item, in order, or an Error for one that is refused. Writes all or nothing; throws what the database throws. */
export type Work<Item, Result> = (
  items: readonly Item[],
  /** False the first time, while others wait: if a row is locked, give up soon; each item is then retried alone. */
  patient: boolean,
) => Promise<readonly (Result | Error)[]>;

export type Gathering<Item, Result> = {
  readonly ask: (item: Item) => Promise<Result>;
  /** How many items wait for their turn. */
  readonly waiting: () => number;
};

/**
 * Runs an item at once while fewer than `atOnce` batches are in flight. Otherwise it queues; when a batch finishes, the queue goes out, in order, as the next one. A statement
 * costs as much as several of its rows, so a crowd is served several times as fast, and nobody waits for others to arrive.
 *
 * If Postgres itself rejected the batch, so that nothing of it was written, every item is retried alone, outside the queue: none fails because of its neighbour, and the queue
 * moves on. Any other failure leaves open what was written, and is reported to all.
 */
export function gather<Item, Result>(
  work: Work<Item, Result>,
  { most, atOnce, timeoutMs }: GatherOptions,
): Gathering<Item, Result> {
  type Asked = { readonly item: Item; readonly inContext: InContext } & PromiseWithResolvers<Result>;
  type Waiting = Asked & { readonly timer: ReturnType<typeof setTimeout> };
  const line = new Set<Waiting>();
  let underWay = 0;
  // Work for several callers must not run in the context of the first.
  const apart = AsyncLocalStorage.snapshot();

  const done = async (together: readonly Asked[], patient: boolean): Promise<void> => {
    try {
      const contexts = together.map(({ inContext }) => inContext);
      const items = together.map(({ item }) => item);
      const results = await apart(() => onBehalfOf(contexts, () => work(items, patient)));
      if (results.length !== items.length) throw new Error("gathered work has not one result for each item");
      for (const [i, result] of results.entries()) {
        if (result instanceof Error) together[i]?.reject(result);
        else together[i]?.resolve(result);
      }
    } catch (error) {
      if (!patient && isRolledBack(error)) for (const one of together) void done([one], true);
      else for (const { reject } of together) reject(error);
    }
  };

  const take = async (together: readonly Asked[]): Promise<void> => {
    underWay += 1;
    await done(together, false);
    underWay -= 1;
    const next: Waiting[] = [];
    for (const waiting of line) {
      if (next.length === most) break;
      clearTimeout(waiting.timer);
      line.delete(waiting);
      next.push(waiting);
    }
    if (next.length > 0) void take(next);
  };

  return {
    ask: (item) => {
      const asked = { item, inContext: AsyncLocalStorage.snapshot(), ...Promise.withResolvers<Result>() };
      if (underWay < atOnce) void take([asked]);
      else {
        const timer = setTimeout(() => {
          line.delete(waiting);
          asked.reject(noConnection(timeoutMs));
        }, timeoutMs);
        const waiting = { ...asked, timer };
        line.add(waiting);
      }
      return asked.promise;
    },
    waiting: () => line.size,
  };
}

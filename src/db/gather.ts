import { AsyncLocalStorage } from "node:async_hooks";
import { type InContext, onBehalfOf } from "./callers.ts";
import { isUnavailable } from "./failure.ts";

export type GatherOptions = {
  /** Items of one piece of work at most. */
  readonly most: number;
  /** Pieces of work under way at most: what comes then waits, and goes together. */
  readonly atOnce: number;
};

/**
 * What is asked for while the same work is under way is done together when that has ended, in the order in which it was asked for; what is asked for alone is done at once.
 * Statements cost as much as the rows in them, so that a crowd is served several times as fast, and nobody waits for company.
 *
 * `work` returns what became of each item, in their order, an Error for one that is refused, and writes all or nothing. When it throws, each item is done again by itself, so
 * that none fails or waits for its neighbour's sake; unless the database is away, which is the same for all, and leaves open whether it has written.
 */
export function gather<Item, Result>(
  work: (items: readonly Item[]) => Promise<readonly (Result | Error)[]>,
  { most, atOnce }: GatherOptions,
): (item: Item) => Promise<Result> {
  type Waiting = { readonly item: Item; readonly inContext: InContext } & PromiseWithResolvers<Result>;
  const line: Waiting[] = [];
  let underWay = 0;

  const done = async (together: readonly Waiting[]): Promise<void> => {
    try {
      const items = together.map(({ item }) => item);
      const contexts = together.map(({ inContext }) => inContext);
      const results = await onBehalfOf(contexts, () => work(items));
      for (const [i, { resolve, reject }] of together.entries()) {
        const result = results[i];
        if (result === undefined) reject(new Error("work that was gathered has no result for an item"));
        else if (result instanceof Error) reject(result);
        else resolve(result);
      }
    } catch (error) {
      if (together.length > 1 && !isUnavailable(error)) await Promise.all(together.map((one) => done([one])));
      else for (const { reject } of together) reject(error);
    }
  };

  const go = () => {
    if (line.length === 0 || underWay === atOnce) return;
    underWay += 1;
    void done(line.splice(0, most)).finally(() => {
      underWay -= 1;
      go();
    });
  };

  return (item) => {
    const waiting = { item, inContext: AsyncLocalStorage.snapshot(), ...Promise.withResolvers<Result>() };
    line.push(waiting);
    go();
    return waiting.promise;
  };
}

import { AsyncLocalStorage } from "node:async_hooks";
import { type InContext, onBehalfOf } from "./callers.ts";
import { isRolledBack } from "./failure.ts";
import { noConnection } from "./turns.ts";

export type GatherOptions = {
  /** Items of one piece of work at most. */
  readonly most: number;
  /** Pieces of work under way at most: what comes then waits, and goes together. */
  readonly atOnce: number;
  /** How long an item may wait for its turn. It fails with code POOL_TIMEOUT then, and its work has not begun. */
  readonly timeoutMs: number;
};

/** Returns what became of each item, in their order, an Error for one that is refused. Writes all or nothing; throws what the database throws. */
export type Work<Item, Result> = (
  items: readonly Item[],
  /** False the first time, for which others wait: whoever finds a row locked shall give up soon, to be done again alone. */
  patient: boolean,
) => Promise<readonly (Result | Error)[]>;

export type Gathering<Item, Result> = {
  readonly ask: (item: Item) => Promise<Result>;
  /** How many items wait for their turn. */
  readonly waiting: () => number;
};

/**
 * What is asked for while as much is under way as may be is done together when something has ended, in the order in which it was asked for; what comes before that is done at
 * once. A statement costs as much as several rows of it, so that a crowd is served several times as fast, and nobody waits for company.
 *
 * Where the work throws, and Postgres has said itself that nothing of it stands, each item is done again, alone and beside the line: none fails for what its neighbour is, and
 * the line goes on. Any other failure leaves open what was written, and is told to all.
 */
export function gather<Item, Result>(
  work: Work<Item, Result>,
  { most, atOnce, timeoutMs }: GatherOptions,
): Gathering<Item, Result> {
  type Asked = { readonly item: Item; readonly inContext: InContext } & PromiseWithResolvers<Result>;
  type Waiting = Asked & { readonly timer: ReturnType<typeof setTimeout> };
  const line = new Set<Waiting>();
  let underWay = 0;
  // Work for several is no part of what the first of them does.
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

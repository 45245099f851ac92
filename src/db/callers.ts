import { AsyncLocalStorage } from "node:async_hooks";

/** Runs something in the async context of the caller who asked for it: below the caller's span. */
export type InContext = <T>(ask: () => T) => T;

const callers = new AsyncLocalStorage<readonly InContext[]>();

/** Runs `work` on behalf of several callers. */
export const onBehalfOf = <T>(contexts: readonly InContext[], work: () => T): T => callers.run(contexts, work);

/** Calls `ask` for every caller on whose behalf this runs, each in its own context; just once when there is only the current one. */
export function asEachCaller<T>(ask: () => T): T[] {
  return callers.getStore()?.map((inContext) => inContext(ask)) ?? [ask()];
}

import { AsyncLocalStorage } from "node:async_hooks";

/** Runs something in the async context of somebody who asked for it: below their span. */
export type InContext = <T>(ask: () => T) => T;

const callers = new AsyncLocalStorage<readonly InContext[]>();

/** Runs `work` on behalf of several callers. */
export const onBehalfOf = <T>(contexts: readonly InContext[], work: () => T): T => callers.run(contexts, work);

/** Asks for everybody on whose behalf this runs, each in its own context: one answer where that is nobody but the caller itself. */
export function asEachCaller<T>(ask: () => T): T[] {
  return callers.getStore()?.map((inContext) => inContext(ask)) ?? [ask()];
}

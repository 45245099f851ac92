import { AsyncLocalStorage } from "node:async_hooks";
import { sql } from "drizzle-orm";
import type { Database } from "../db/client.ts";

const channel = "wordloom_outbox";
const coalesceMs = 5;

/** Tells workers that there is work: at once in this process, by one NOTIFY every few milliseconds elsewhere. Only a hint: polling finds what a lost one misses. */
export type WakeUps = {
  /** Call after the commit. Never throws, never waits. */
  readonly announce: () => void;
  /** Calls back on every announcement from here on, of this process and of others; returns the way to stop. */
  readonly subscribe: (heard: () => void) => () => void;
  /** Starts hearing other processes. Without it only announcements of this process are heard. */
  readonly listen: () => Promise<void>;
  readonly close: () => Promise<void>;
};

/** The NOTIFY goes out on `database`'s own connections, outside of any write transaction. */
export function openWakeUps(database: Database): WakeUps {
  const subscribers = new Set<() => void>();
  let pending: ReturnType<typeof setTimeout> | undefined;
  let sending: Promise<void> | undefined;
  let sentAt = Number.NEGATIVE_INFINITY;
  // A NOTIFY speaks for many requests, and is no part of the one that came first.
  const apart = AsyncLocalStorage.snapshot();
  let unlisten: (() => Promise<void>) | undefined;
  const tell = () => {
    for (const heard of subscribers) heard();
  };
  // One at a time: while the database does not answer, announcements wait for their turn here and not in the pool.
  const send = async () => {
    await sending;
    pending = undefined;
    sentAt = performance.now();
    sending = database.db.execute(sql`select pg_notify(${channel}, '')`).then(
      () => undefined,
      () => undefined,
    );
  };
  return {
    announce: () => {
      tell();
      // The first goes out at once, the ones that follow within a few milliseconds together.
      pending ??= setTimeout(() => void apart(send), Math.max(0, sentAt + coalesceMs - performance.now()));
    },
    subscribe: (heard) => {
      subscribers.add(heard);
      return () => subscribers.delete(heard);
    },
    listen: async () => {
      unlisten ??= await database.listen(channel, tell);
    },
    close: async () => {
      if (pending !== undefined) {
        clearTimeout(pending);
        await send();
      }
      await sending;
      await unlisten?.().catch(() => undefined);
    },
  };
}

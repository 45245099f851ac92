import { sql } from "drizzle-orm";
import type { Db, Tx } from "../db/client.ts";
import { tryLock } from "../db/lock.ts";
import { CommandError } from "../errors.ts";
import { appending } from "../outbox/append.ts";
import { type Queue, queues } from "../outbox/queue.ts";
import { describeError } from "../telemetry/log.ts";
import { countRows, past } from "./pages.ts";
import { rowEvent } from "./search/document.ts";

/** `done` of `total`; called after each page. */
export type Progress = (done: number, total: number) => void;

/** Held by a rebuild from start to end. */
export type RebuildLock = {
  /** Throws when the lock is lost: another rebuild may be running by now. */
  readonly check: () => Promise<void>;
};

/** Whether the transaction is the one that may rebuild the projection, until it ends. */
export const lockRebuild = (tx: Tx, projection: string): Promise<boolean> =>
  tryLock(tx, `wordloom rebuild ${projection}`);

/** Workers hold the lock for a moment, now and then; another rebuild for longer. */
const lockWaitMs = 2000;

async function waitForLock(tx: Tx, projection: string): Promise<boolean> {
  const until = performance.now() + lockWaitMs;
  while (!(await lockRebuild(tx, projection))) {
    if (performance.now() >= until) return false;
    await Bun.sleep(50);
  }
  return true;
}

/**
 * Runs one rebuild of a projection, never two at a time, and writes down in projection_status when it began, when it ended and how: the workers show it in
 * `projection_rebuild_…`. Throws what `work` throws, and a CommandError (exit 5) when another one is running.
 */
export async function rebuilding<T>(db: Db, queue: Queue, work: (lock: RebuildLock) => Promise<T>): Promise<T> {
  const { projection } = queue;
  return await db.transaction(async (tx) => {
    if (!(await waitForLock(tx, projection)))
      throw new CommandError("refused", `another rebuild of ${projection} is running; wait until it has ended`);
    await db.execute(sql`
      insert into projection_status (projection_name, last_rebuild_started_at) values (${projection}, now())
          on conflict (projection_name) do update set last_rebuild_started_at = now(), updated_at = now()`);
    const ended = (error: string | null) =>
      db.execute(sql`
        update projection_status
           set last_rebuild_finished_at = now(), last_rebuild_duration_seconds = extract(epoch from now() - last_rebuild_started_at),
               last_rebuild_success = ${error === null}, last_rebuild_error = ${error}, updated_at = now()
         where projection_name = ${projection}`);
    try {
      const result = await work({ check: async () => void (await tx.execute(sql`select 1`)) });
      await ended(null);
      return result;
    } catch (error) {
      await ended(describeError(error).message).catch(() => undefined);
      throw error;
    }
  });
}

/** Where the events of each queue come from: what it is a projection of. */
const sources = {
  [queues.search.table]: {
    table: sql`search_index`,
    event: rowEvent,
  },
  [queues.chronicle.table]: { table: sql`chronicle_events`, event: sql`'chronicle_event', id, 'upsert', 0::bigint` },
} as const;

export const interrupted = (left: string): CommandError =>
  new CommandError("failed", `stopped before the end; ${left}`);

const pageRows = 1000;

/**
 * Appends an event for each row that the projection is made of, or for those that are `owed` one (a condition), a page of rows to a statement: none of them meets the
 * statement timeout, however large the table is. Yields after each page how many events it gave.
 */
export async function* appendPages(db: Db | Tx, queue: Queue, owed = sql`true`): AsyncGenerator<number> {
  const { table, event } = sources[queue.table];
  type Page = { events: number; last: string | null };
  for (let after: string | null = null; ; ) {
    const [page]: Page[] = await db.execute<Page>(sql`
      with page(row_id, entity_type, entity_id, op, event_version, owed) as materialized (
        select id, ${event}, ${owed} from ${table} s where ${past(after)} order by id limit ${pageRows}
      ), appended as (${appending(queue, sql`select entity_type, entity_id, op, event_version, null, null from page where owed order by row_id`)})
      select count(*) filter (where owed)::int as events, (select row_id::text from page order by row_id desc limit 1) as last from page`);
    if (page === undefined || page.last === null) return;
    after = page.last;
    yield page.events;
  }
}

/**
 * Appends an event for each row that the projection is made of, tombstones included, as if each had just been written: the workers do the rest. Returns how many.
 * Throws as `rebuilding` does, and a CommandError when `signal` fires.
 */
export async function emitOutbox(
  db: Db,
  queue: Queue,
  { signal, onProgress }: { readonly signal: AbortSignal; readonly onProgress: Progress },
): Promise<number> {
  const { table } = sources[queue.table];
  return await rebuilding(db, queue, async (lock) => {
    const total = await countRows(db, table);
    let count = 0;
    for await (const events of appendPages(db, queue)) {
      count += events;
      onProgress(count, total);
      await lock.check();
      if (signal.aborted) throw interrupted("run it again: what is in the queue twice is written once");
    }
    return count;
  });
}

import type { Client } from "@elastic/elasticsearch";
import { sql } from "drizzle-orm";
import type { Db, Tx } from "../../db/client.ts";
import { array } from "../../db/sql.ts";
import { CommandError } from "../../errors.ts";
import { queues } from "../../outbox/queue.ts";
import { pause } from "../../pause.ts";
import { bulkBody, sendBulk } from "../../search/bulk.ts";
import { dropAside, openNextIndex, type SearchIndex, takeOver } from "../../search/indices.ts";
import { retryDelayMs } from "../backoff.ts";
import { countRows } from "../pages.ts";
import { appendPages, interrupted, lockRebuild, type Progress, rebuilding } from "../rebuild.ts";
import { verdict } from "../verdict.ts";
import { sendBisecting } from "./bisect.ts";
import { parts } from "./cut.ts";
import { changedSince, readItems, readMark, type StoredItem, type Wanted } from "./document.ts";

export type RebuildOptions = {
  /** What is searched. It is there, and ours. */
  readonly search: SearchIndex;
  readonly maxBytes: number;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly onProgress: Progress;
};

export type Rebuilt = {
  /** The index that is behind the alias from now on. */
  readonly index: string;
  readonly documents: number;
  /** Rows written while it ran, and brought in or put into the queue again. */
  readonly changed: number;
  /** What Elasticsearch refuses for what is in it; each has an event in the queue again, which will say so. */
  readonly refused: readonly { readonly id: string; readonly error: string }[];
};

const pageRows = 500;
/** An engine that is away is asked for some two minutes. */
const backoff = { baseMs: 250, maxMs: 15_000 };
const maxTries = 12;
const limits = { maxAttempts: 3, terminalOnTransient: false };

/**
 * Fills a new index from search_index and puts it in the place of the old one in one step, while everything goes on: until then searches and workers use the old index. What
 * is written meanwhile is brought in just before, and what is written in that moment is put into the queue again: versions make every order of it right. The old index is
 * dropped; whatever stops a rebuild, it stays as it is. Throws a CommandError when another rebuild runs, the engine does not come back, or `signal` fires.
 */
export async function rebuildSearch(db: Db, client: Client, options: RebuildOptions): Promise<Rebuilt> {
  const { search, maxBytes, timeoutMs, signal, onProgress } = options;
  const { alias } = search;

  /** Sends what can be sent, again and again. Returns what is refused for good. */
  async function send(target: string, stored: readonly StoredItem[]) {
    const refused: { stored: StoredItem; error: string }[] = [];
    let left = stored;
    for (let tries = 0; ; tries += 1) {
      const again: StoredItem[] = [];
      let why = "";
      for (const part of parts(left, maxBytes)) {
        const results = await sendBisecting(
          (items) => sendBulk(client, target, items, bulkBody(items), { timeoutMs, signal }),
          part.map(({ item }) => item),
        );
        for (const [i, one] of part.entries()) {
          const judged = { sentAs: one.item.op, version: one.item.version, countedAttempts: tries };
          const told = verdict(results[i] ?? { kind: "unanswered" }, judged, limits);
          if (told.kind === "fail") refused.push({ stored: one, error: told.error });
          if (told.kind !== "retry") continue;
          why = `${told.reason}: ${told.error}`;
          again.push(one);
        }
      }
      stopIfAsked(signal);
      if (again.length === 0) return refused;
      if (tries + 1 >= maxTries)
        throw new CommandError("unreachable", `Elasticsearch does not accept the documents (${why}); ${unchanged}`);
      left = again;
      await pause(retryDelayMs(tries, backoff), signal);
      stopIfAsked(signal);
    }
  }

  return await rebuilding(db, queues.search, async (lock) => {
    const total = await countRows(db, sql`search_index where deleted_at is null`);
    const begun = await readMark(db);
    const { index, building } = await openNextIndex(client, search);
    const refused = new Map<string, { rowId: string; error: string }>();

    /** The next page is read while this one is sent. Returns how many documents were brought, and how many deletes. */
    async function bring(wanted: Wanted, progress: (documents: number) => void = () => undefined) {
      let [documents, deletes] = [0, 0];
      let page = await readItems(db, wanted, null, pageRows);
      while (page.length > 0) {
        const reading = readItems(db, wanted, page.at(-1)?.rowId ?? null, pageRows);
        const [refusals, following] = await Promise.all([send(building, page), reading, lock.check()]);
        for (const { item } of page) refused.delete(item.id);
        for (const { stored, error } of refusals) refused.set(stored.item.id, { rowId: stored.rowId, error });
        const deleted = page.filter(({ item }) => item.op === "delete").length;
        deletes += deleted;
        documents += page.length - deleted;
        progress(documents);
        page = following;
      }
      return { documents, deletes };
    }

    try {
      const { documents } = await bring({ kind: "all" }, (count) => onProgress(count, total));
      const almost = await readMark(db);
      const changed = await bring({ kind: "changed", since: begun });
      if (refused.size > documents / 2) throw refusal(refused.size, [...refused.values()][0]?.error ?? "");
      await lock.check();
      stopIfAsked(signal);
      await touch(
        db,
        Array.from(refused.values(), ({ rowId }) => rowId),
      );
      await announceTakeOver(db, almost);
      await takeOver(client, alias, { index, building });
      const late = await completeTakeOver(db, almost);
      return {
        index,
        documents,
        changed: changed.documents + changed.deletes + late,
        refused: [...refused].map(([id, { error }]) => ({ id, error })),
      };
    } finally {
      // Where it fails, the next rebuild does it. Without the lock what is there may be that one's.
      await lock
        .check()
        .then(() => dropAside(client, alias))
        .catch(() => undefined);
    }
  });
}

const unchanged = "the index in use is as it was; run it again";

/** An index that takes less than half of what there is must not be searched: what is wrong is not the documents. */
const refusal = (count: number, error: string) =>
  new CommandError("failed", `Elasticsearch refuses ${count} documents (${error}); fix the cause; ${unchanged}`);

function stopIfAsked(signal: AbortSignal): void {
  if (signal.aborted) throw interrupted(unchanged);
}

const own = sql`projection_name = ${queues.search.projection}`;

/** What an earlier rebuild still owes is not forgotten: this one may fail at its take-over. */
const announceTakeOver = async (db: Db, since: string) =>
  await db.execute(
    sql`update projection_status set take_over_since = least(take_over_since, ${since}::xid8), updated_at = now() where ${own}`,
  );

const touchedAtOnce = 1000;

/**
 * Writes rows anew as they are, so that they have changed by now. What the new index refuses must not be missing in silence: each is owed an event, which will fail and say
 * why, by whoever completes the take-over.
 */
async function touch(db: Db, rowIds: readonly string[]): Promise<void> {
  for (let at = 0; at < rowIds.length; at += touchedAtOnce) {
    const ids = array("uuid", rowIds.slice(at, at + touchedAtOnce));
    await db.execute(sql`update search_index set rank_score = rank_score where id = any(${ids})`);
  }
}

/** Appends events for what the index that was there last may have got in place of the new one. Returns how many. */
async function completeTakeOver(db: Db | Tx, since: string): Promise<number> {
  let count = 0;
  for await (const events of appendPages(db, queues.search, changedSince(since))) count += events;
  await db.execute(sql`update projection_status set take_over_since = null, updated_at = now() where ${own}`);
  return count;
}

/** The transaction since which a take-over owes events; undefined when it owes none. */
async function owedSince(db: Db | Tx): Promise<string | undefined> {
  const [left] = await db.execute<{ since: string }>(
    sql`select take_over_since::text as since from projection_status where ${own} and take_over_since is not null`,
  );
  return left?.since;
}

/**
 * Whether a tombstone may be needed: a rebuild that has read what was alive then learns of its delete from the tombstone alone, and so does whoever completes a take-over. If
 * not, no rebuild begins until the transaction ends.
 */
export async function needsTombstones(tx: Tx): Promise<boolean> {
  return !(await lockRebuild(tx, queues.search.projection)) || (await owedSince(tx)) !== undefined;
}

/**
 * Does what a rebuild has left undone that was killed between its take-over and the events after it. For workers, now and then: costs nothing while there is none. Returns how
 * many events were appended; none while that rebuild, or another one, is running.
 */
export async function completeInterruptedTakeOver(db: Db): Promise<number> {
  if ((await owedSince(db)) === undefined) return 0;
  return await db.transaction(async (tx) => {
    if (!(await lockRebuild(tx, queues.search.projection))) return 0;
    // Another worker may have done it since.
    const since = await owedSince(tx);
    return since === undefined ? 0 : await completeTakeOver(tx, since);
  });
}

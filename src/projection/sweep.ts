import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { failureReason } from "../db/failure.ts";
import { readBacklog } from "../outbox/backlog.ts";
import type { Queue } from "../outbox/queue.ts";
import { reclaim } from "../outbox/reclaim.ts";
import { type PruneStep, pruneDone, readOldestUnfinished } from "../outbox/retention.ts";
import { every } from "../pause.ts";
import type { DatabaseStep, WorkerSignals } from "../telemetry/worker-signals.ts";
import { completeInterruptedTakeOver, needsTombstones } from "./search/rebuild.ts";

export type SweepOptions = {
  readonly workerId: string;
  readonly reclaimIntervalMs: number;
  readonly maxProcessingMs: number;
  readonly maxAttempts: number;
  readonly retentionHours: number;
};

const gaugeIntervalMs = 5000;
const pruneIntervalMs = 60_000;
const pruneStep = 5000;

/** Drops tombstones that nobody needs any more: neither a rebuild, nor an unfinished event, as one that is older than the delete would bring the entity back. One step. */
async function pruneTombstones(db: Db, queue: Queue, hours: number): Promise<number> {
  const oldest = await readOldestUnfinished(db, queue);
  return await db.transaction(async (tx) => {
    if (await needsTombstones(tx)) return 0;
    const rows = await tx.execute(sql`
      delete from search_index where id in (
        select id from search_index
         where deleted_at < now() - ${hours}::float8 * interval '1 hour' and (${oldest}::timestamptz is null or deleted_at < ${oldest}::timestamptz)
         limit ${pruneStep} for update skip locked)
      returning 1`);
    return rows.length;
  });
}

/** Drops windows that are long over. The longest is a day (CHRONICLE_BLOCK_UPDATED_DEDUPE_SECONDS), and a row is written when its window opens: after two it says nothing. */
async function pruneDedupe(db: Db): Promise<number> {
  const rows = await db.execute(sql`
    with old as materialized (
      select ctid from chronicle_event_dedupe_state where updated_at < now() - interval '2 days' order by updated_at limit ${pruneStep} for update skip locked
    )
    delete from chronicle_event_dedupe_state s where s.ctid = any(array(select ctid from old))
    returning 1`);
  return rows.length;
}

async function readRebuild(
  db: Db,
  projection: string,
): Promise<{ durationSeconds: number; finishedAt: number; success: boolean } | null> {
  const [row] = await db.execute<{ duration: number | null; finished: number | null; success: boolean | null }>(sql`
    select last_rebuild_duration_seconds as duration, extract(epoch from last_rebuild_finished_at)::float8 as finished, last_rebuild_success as success
      from projection_status where projection_name = ${projection}`);
  return row
    ? { durationSeconds: row.duration ?? 0, finishedAt: row.finished ?? 0, success: row.success ?? false }
    : null;
}

/**
 * What has to be done now and then beside the work: take back lapsed leases, read the gauges, prune, complete an interrupted rebuild. Each on its own interval, never two of a kind at once.
 * `found` is called when there are events in the queue that were not there before. Returns the way to stop, which waits for the
 * statements that are under way, not for the end of a long prune. Idempotent.
 */
export function startSweep(
  db: Db,
  queue: Queue,
  options: SweepOptions,
  signals: WorkerSignals,
  found: () => void,
): () => Promise<void> {
  const stopping = new AbortController();
  const keep = (ms: number, step: DatabaseStep, work: () => Promise<void>) =>
    ms <= 0
      ? () => Promise.resolve()
      : every(ms, () => work().catch((error: unknown) => signals.databaseFailed(step, failureReason(error), error)));

  const stops = [
    keep(options.reclaimIntervalMs, "reclaim", async () => {
      while (!stopping.signal.aborted) {
        const rows = await reclaim(db, queue, options.workerId, options.maxProcessingMs, options.maxAttempts);
        if (rows.length === 0) return;
        signals.reclaimed(rows);
        found();
      }
    }),
    keep(gaugeIntervalMs, "backlog", async () => {
      signals.backlogRead(await readBacklog(db, queue, options.maxProcessingMs));
      const rebuild = await readRebuild(db, queue.projection);
      if (rebuild) signals.rebuildRead(rebuild);
      const completed = queue.short === "search" ? await completeInterruptedTakeOver(db) : 0;
      if (completed > 0) {
        signals.takeOverCompleted(completed);
        found();
      }
    }),
    keep(pruneIntervalMs, "prune", async () => {
      let events = 0;
      for (let from: bigint | null = 0n; from !== null && !stopping.signal.aborted; ) {
        const { pruned, next }: PruneStep = await pruneDone(db, queue, options.retentionHours, pruneStep, from);
        events += pruned;
        from = next;
      }
      let tombstones = 0;
      if (queue.short === "search")
        for (let step = pruneStep; step === pruneStep && !stopping.signal.aborted; tombstones += step)
          step = await pruneTombstones(db, queue, options.retentionHours);
      if (queue.short === "chronicle") while (!stopping.signal.aborted && (await pruneDedupe(db)) === pruneStep);
      if (events + tombstones > 0) signals.pruned(events, tombstones);
    }),
  ];
  return async () => {
    stopping.abort();
    await Promise.all(stops.map((stop) => stop()));
  };
}

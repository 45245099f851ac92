import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { array } from "../db/sql.ts";
import { type Queue, queues } from "./queue.ts";

/** An event as its row says, live or done: what a drill keeps as evidence. */
export type EventRow = {
  readonly id: string;
  readonly projection: string;
  readonly entity_id: string;
  readonly op: string;
  readonly event_version: string;
  readonly status: string;
  readonly result: string | null;
  readonly attempts: number;
  readonly error_reason: string | null;
  readonly owner: string | null;
  readonly claim_batch_id: string | null;
  readonly traceparent: string | null;
  readonly reclaim_count: number;
  readonly last_reclaimed_by: string | null;
  readonly last_reclaimed_from: string | null;
  readonly last_reclaimed_reason: string | null;
  readonly replay_count: number;
};

/** The events of these entities (of these chronicle events, in the chronicle's queue), the oldest first. */
export const readRows = async (db: Db, queue: Queue, entityIds: readonly string[]): Promise<readonly EventRow[]> =>
  await db.execute<EventRow>(sql`
    select e.id::text, ${queue.projection} as projection, e.entity_id::text, e.op, e.event_version::text, e.status, e.result, e.attempts, e.error_reason, e.owner,
           e.claim_batch_id::text, e.traceparent, e.reclaim_count, e.last_reclaimed_by, e.last_reclaimed_from, e.last_reclaimed_reason, e.replay_count
      from ${sql.identifier(queue.table)} e where e.entity_id = any(${array("uuid", entityIds)}) order by e.id`);

/** Runs `work` while nobody can claim, settle or append: others wait until it ends, or until their own lock timeout. */
export const holdingQueues = async <T>(db: Db, work: () => Promise<T>): Promise<T> =>
  await db.transaction(async (tx) => {
    // A session that does nothing else would be ended after some seconds.
    await tx.execute(sql`set local idle_in_transaction_session_timeout = 0`);
    for (const { table } of Object.values(queues))
      await tx.execute(sql`lock table ${sql.identifier(`${table}_live`)} in share row exclusive mode`);
    return await work();
  });

/** Drops what waits in every queue, unseen by anybody: for a database that holds nothing but drills. */
export const dropUnfinished = async (db: Db): Promise<void> => {
  await db.execute(
    sql`truncate ${sql.join(
      [...Object.values(queues).map(({ table }) => `${table}_live`), "outbox_leases"].map((name) =>
        sql.identifier(name),
      ),
      sql`, `,
    )}`,
  );
};

import { sql } from "drizzle-orm";
import type { Tx } from "../db/client.ts";
import type { NewEvent, Queue, TraceContext } from "./event.ts";

/**
 * Puts events into a queue, in the order given, as part of the caller's transaction: they are there exactly when its writes are.
 * Announce them (wake.ts) after the commit, never inside: a NOTIFY in the write path serialises commits (measured: p50 10 ms → 2 s at 2,000 writes/s).
 */
export async function append(tx: Tx, queue: Queue, events: readonly NewEvent[], trace: TraceContext): Promise<void> {
  if (events.length === 0) return;
  const rows = JSON.stringify(events.map((e) => [e.entityType, e.entityId, e.op, e.eventVersion.toString()]));
  await tx.execute(sql`
    insert into ${sql.identifier(queue.table)} (entity_type, entity_id, op, event_version, traceparent, tracestate)
    select e->>0, (e->>1)::uuid, e->>2, (e->>3)::bigint, ${trace.traceparent}, ${trace.tracestate}
      from jsonb_array_elements(${rows}::jsonb) with ordinality as r(e, n)
     order by n`);
}

import { afterAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import fc from "fast-check";
import { readBacklog } from "../../src/outbox/backlog.ts";
import { queues } from "../../src/outbox/queue.ts";
import { pruneDone, readOldestUnfinished } from "../../src/outbox/retention.ts";
import { testDatabase } from "../support/postgres.ts";
import { empty } from "../support/queue.ts";

const database = await testDatabase();
const { db, close } = database.open({ max: 1 });
afterAll(close);
const queue = queues.search;

type Row = { status: string; waits: boolean; leaseSeconds: number; workedSeconds: number; ageSeconds: number };
const row: fc.Arbitrary<Row> = fc.record({
  status: fc.constantFrom("pending", "processing", "failed", "done"),
  waits: fc.boolean(),
  leaseSeconds: fc.integer({ min: -100, max: 100 }).filter((s) => Math.abs(s) > 1),
  workedSeconds: fc.integer({ min: 0, max: 900 }).filter((s) => Math.abs(s - 600) > 1),
  ageSeconds: fc.integer({ min: 0, max: 100_000 }),
});

/** Ids rise with the time of the append, as appending makes them. */
async function insert(rows: readonly Row[]): Promise<void> {
  const values = rows.toSorted((a, b) => b.ageSeconds - a.ageSeconds);
  await db.execute(sql`
    with made as (
    insert into search_outbox_events (entity_type, entity_id, op, status, next_retry_at, lease_until, processing_started_at, claim_batch_id, created_at, updated_at, processed_at)
    select 'tag', gen_random_uuid(), 'upsert', r->>'status', case r->>'status' when 'failed' then 'infinity' when 'done' then null else case when (r->>'waits')::bool then now() end end::timestamptz,
           case r->>'status' when 'processing' then now() + (r->>'leaseSeconds')::int * interval '1 second' end,
           case r->>'status' when 'processing' then now() - (r->>'workedSeconds')::int * interval '1 second' end,
           case r->>'status' when 'processing' then gen_random_uuid() end, now() - (r->>'ageSeconds')::int * interval '1 second', now() - (r->>'ageSeconds')::int * interval '1 second',
           case r->>'status' when 'done' then now() - (r->>'ageSeconds')::int * interval '1 second' end
      from jsonb_array_elements(${JSON.stringify(values)}::jsonb) with ordinality as v(r, n) order by n
    returning id, status, claim_batch_id)
    insert into outbox_leases (claim_batch_id, projection, ids) select claim_batch_id, ${queue.projection}, array[id] from made where status = 'processing'`);
}

test("the backlog is what a naive count over all rows says, and neither failed nor done rows are lag or age", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(row, { maxLength: 40 }), async (rows) => {
      await empty(db, queue);
      await insert(rows);
      const live = rows.filter((r) => r.status === "pending" || r.status === "processing");
      const processing = rows.filter((r) => r.status === "processing");
      const told = await readBacklog(db, queue, 600_000);
      const { oldestAgeSeconds, ...counts } = told;
      expect(counts).toEqual({
        lag: live.length,
        processing: processing.length,
        stuck: processing.filter((r) => r.leaseSeconds < 0 || r.workedSeconds > 600).length,
        failed: rows.filter((r) => r.status === "failed").length,
      });
      const oldest = Math.max(0, ...live.map((r) => r.ageSeconds));
      expect(oldestAgeSeconds).toBeGreaterThanOrEqual(oldest);
      expect(oldestAgeSeconds).toBeLessThan(oldest + 30);
      const [naive] = await db.execute<{ oldest: string | null }>(
        sql`select min(created_at)::text as oldest from search_outbox_events where status in ('pending', 'processing')`,
      );
      expect(await readOldestUnfinished(db, queue)).toBe(naive?.oldest ?? null);
    }),
    { numRuns: 150 },
  );
});

test("history is pruned by age in steps, the oldest first, and nothing live goes with it", async () => {
  await empty(db, queue);
  const aged = (status: string, hours: number): Row => ({
    status,
    waits: false,
    leaseSeconds: 60,
    workedSeconds: 0,
    ageSeconds: hours * 3600,
  });
  await insert([
    ...Array.from({ length: 25 }, (_, i) => aged("done", 200 + i)),
    ...Array.from({ length: 5 }, () => aged("done", 100)),
    ...["pending", "processing", "failed"].map((status) => aged(status, 1000)),
  ]);
  const oldest = async () =>
    (
      await db.execute<{ h: number }>(
        sql`select round(extract(epoch from now() - min(processed_at)) / 3600)::int as h from search_outbox_events`,
      )
    )[0]?.h;
  // Appended first, processed last.
  await db.execute(
    sql`update search_outbox_events set processed_at = now() where id = (select min(id) from search_outbox_events where status = 'done')`,
  );
  const first = await pruneDone(db, queue, 168, 10);
  expect(first.pruned).toBe(9);
  expect(await oldest()).toBe(214);
  const second = await pruneDone(db, queue, 168, 10, first.next ?? 0n);
  expect(second.pruned).toBe(10);
  const third = await pruneDone(db, queue, 168, 10, second.next ?? 0n);
  expect(third).toEqual({ pruned: 5, next: null });
  expect(await pruneDone(db, queue, 168, 10)).toEqual({ pruned: 0, next: null });
  const left = await db.execute<{ status: string; n: number }>(
    sql`select status, count(*)::int as n from search_outbox_events group by status order by status`,
  );
  expect(Array.from(left, (r) => [r.status, r.n])).toEqual([
    ["done", 6],
    ["failed", 1],
    ["pending", 1],
    ["processing", 1],
  ]);
});

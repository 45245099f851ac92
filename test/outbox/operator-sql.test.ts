import { afterAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { openClaim } from "../../src/outbox/claim.ts";
import { queues } from "../../src/outbox/queue.ts";
import { settle } from "../../src/outbox/settle.ts";
import { testDatabase } from "../support/postgres.ts";
import { applied, enqueue, newEvents } from "../support/queue.ts";

const database = await testDatabase();
const { db, close } = database.open();
afterAll(close);
const queue = queues.search;

/** As the operator documents print it, character for character. */
const statements = {
  states: `select status, count(*) as n
from search_outbox_events
group by status
order by n desc;`,
  reasons: `select coalesce(error_reason, '(null)') as error_reason, count(*) as n
from search_outbox_events
where status = 'failed'
group by 1
order by n desc
limit 20;`,
  recent: `select count(*) as failed_24h
from search_outbox_events
where status = 'failed'
  and updated_at > now() - interval '24 hours';`,
  backlog: `select
  count(*) as pending,
  coalesce(extract(epoch from (now() - min(created_at))), 0)::bigint as oldest_age_s
from search_outbox_events
where status = 'pending'
  and processed_at is null;`,
  sample: `select entity_type, op, attempts, updated_at, error_reason, left(coalesce(error,''), 300) as error_snip
from search_outbox_events
where status = 'failed'
order by updated_at desc
limit 50;`,
  trace: `select id, status, traceparent, tracestate, created_at
from search_outbox_events
order by created_at desc
limit 10;`,
};

test("the queries of the operator documents run as written on the partitioned table", async () => {
  await enqueue(db, queue, newEvents(6));
  const lease = await openClaim(db, queue, { owner: "w1", leaseMs: 30_000 })(4);
  if (lease === null) throw new Error("nothing was claimed");
  const [a, b, c] = lease.events.map((e) => e.id);
  await settle(
    db,
    queue,
    lease,
    new Map([
      [a ?? 0n, applied],
      [b ?? 0n, applied],
      [c ?? 0n, { kind: "fail", reason: "es_4xx", error: "no such field", sent: true }],
    ]),
  );
  const run = async (text: string) => Array.from(await db.execute(sql.raw(text)), (row) => ({ ...row }));
  expect(
    (await run(statements.states)).toSorted((x, y) => String(x["status"]).localeCompare(String(y["status"]))),
  ).toEqual([
    { status: "done", n: "2" },
    { status: "failed", n: "1" },
    { status: "pending", n: "2" },
    { status: "processing", n: "1" },
  ]);
  expect(await run(statements.reasons)).toEqual([{ error_reason: "es_4xx", n: "1" }]);
  expect(await run(statements.recent)).toEqual([{ failed_24h: "1" }]);
  expect(await run(statements.backlog)).toMatchObject([{ pending: "2" }]);
  expect(await run(statements.sample)).toMatchObject([
    { entity_type: "tag", op: "upsert", attempts: 1, error_reason: "es_4xx", error_snip: "no such field" },
  ]);
  expect(await run(statements.trace)).toHaveLength(6);
});

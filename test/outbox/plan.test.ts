import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type SQL, sql } from "drizzle-orm";
import { PgDialect } from "drizzle-orm/pg-core";
import type { Lease, Outcome } from "../../src/events.ts";
import { readBacklog } from "../../src/outbox/backlog.ts";
import { openClaim, renew } from "../../src/outbox/claim.ts";
import { hasten } from "../../src/outbox/hasten.ts";
import { queues } from "../../src/outbox/queue.ts";
import { reclaim } from "../../src/outbox/reclaim.ts";
import { replay } from "../../src/outbox/replay.ts";
import { settle } from "../../src/outbox/settle.ts";
import { intercept } from "../support/intercept.ts";
import { testDatabase } from "../support/postgres.ts";

const database = await testDatabase();
// One connection: prepared statements are its own, as a worker's are.
const { db, close } = database.open({ max: 1, statementTimeoutMs: 60_000 });
afterAll(close);
const queue = queues.search;
const live = "search_outbox_events_live";
const batchId = "5e1a4a10-0c5c-4a05-bb4e-0db2ea8bb0ad";

/** What the queue sends to Postgres, without sending it. */
async function statements(): Promise<Map<string, string>> {
  const seen: SQL[] = [];
  const spied = intercept(db, (statement) => {
    seen.push(statement);
    return Promise.resolve([]);
  });
  const events = Array.from({ length: 100 }, (_, i) => ({ id: BigInt(500 + i) }));
  const lease = { claimBatchId: batchId, owner: "w", events, expiresAt: 0 } as unknown as Lease;
  const outcomes = new Map<bigint, Outcome>(
    events.map(({ id }, i) => [
      id,
      i % 2 === 0 ? { kind: "done", result: "applied", sent: true } : { kind: "release" },
    ]),
  );
  const claim = openClaim(spied, queue, { owner: "w", leaseMs: 30_000 });
  await claim(100);
  await claim(100);
  await settle(spied, queue, lease, outcomes);
  await renew(spied, queue, lease, 30_000, 300_000);
  await reclaim(spied, queue, "w", 300_000, 10);
  await hasten(spied, queue, ["es_connect"], 100, 0);
  await replay(spied, queue, { by: "operator", reason: "mended", limit: 100 });
  // It wants an answer.
  await readBacklog(spied, queue, 300_000).catch(() => undefined);
  const names = [
    "claim_retries_first",
    "claim_fresh_first",
    "settle",
    "renew",
    "reclaim",
    "hasten",
    "replay",
    "backlog",
  ];
  const dialect = new PgDialect();
  return new Map(
    seen.map((query, i) => {
      const { sql: text, params } = dialect.sqlToQuery(query);
      const values = params.map((p) => `'${String(p).replaceAll("'", "''")}'`).join(",");
      return [names[i] ?? "", `${text}\n--\n${values}`];
    }),
  );
}

type Node = { "Node Type": string; "Relation Name"?: string; "Index Name"?: string; Plans?: Node[] };
const isScan = (node: Node) => node["Relation Name"] === live && node["Node Type"] !== "ModifyTable";
/** How the plan reaches the live rows; "Sort" where it has to put them in order. */
const scansOf = (node: Node): string[] => [
  ...(isScan(node) ? [[node["Node Type"], node["Index Name"]].filter(Boolean).join(" ")] : []),
  ...(node["Node Type"].includes("Sort") && (node.Plans ?? []).some(isScan) ? ["Sort"] : []),
  ...(node.Plans ?? []).flatMap(scansOf),
];

const byIndex: Record<string, string[]> = {
  claim_retries_first: ["Index Scan idx_search_outbox_claim", "Index Scan idx_search_outbox_claim", "Tid Scan"],
  claim_fresh_first: ["Index Scan idx_search_outbox_claim", "Index Scan idx_search_outbox_claim", "Tid Scan"],
  settle: [`Index Scan ${live}_pkey`, `Index Scan ${live}_pkey`],
  renew: [`Index Scan ${live}_pkey`],
  reclaim: [`Index Scan ${live}_pkey`, `Index Scan ${live}_pkey`, "Sort", "Tid Scan"],
  replay: ["Index Scan idx_search_outbox_claim", "Tid Scan"],
  backlog: [
    ...Array.from({ length: 3 }, () => "Index Only Scan idx_search_outbox_claim"),
    ...Array.from({ length: 2 }, () => "Index Scan idx_search_outbox_claim"),
    `Index Scan ${live}_pkey`,
  ],
  hasten: ["Index Scan idx_search_outbox_claim", "Tid Scan"],
};

const prepare = async () => {
  for (const [name, text] of await statements()) {
    const [query, values] = text.split("\n--\n");
    await db.execute(sql.raw(`prepare ${name} as ${query}`));
    // After five executions Postgres may settle on one plan for all parameters.
    for (let i = 0; i < 8; i += 1)
      await db
        .transaction(async (tx) => {
          await tx.execute(sql.raw(`execute ${name}(${values})`));
          tx.rollback();
        })
        .catch(() => undefined);
  }
};
const expectIndexes = async () => {
  for (const [name, text] of await statements()) {
    const [row] = await db.execute<{ "QUERY PLAN": { Plan: Node }[] }>(
      sql.raw(`explain (format json) execute ${name}(${text.split("\n--\n")[1]})`),
    );
    const plan = row?.["QUERY PLAN"][0]?.Plan;
    expect([name, ...(plan === undefined ? [] : scansOf(plan)).toSorted()]).toEqual([
      name,
      ...(byIndex[name] ?? []).toSorted(),
    ]);
  }
};

/** Nine in ten fresh, one in ten a retry; one batch under lease. */
const fill = (rows: number) =>
  db.execute(
    sql.raw(`
    insert into search_outbox_events (entity_type, entity_id, op, event_version, status, claim_batch_id, lease_until, processing_started_at, next_retry_at, error_reason)
    select 'block', gen_random_uuid(), 'upsert', n, case when n between 500 and 599 then 'processing' else 'pending' end, case when n between 500 and 599 then '${batchId}'::uuid end,
           case when n between 500 and 599 then now() + interval '1 hour' end, case when n between 500 and 599 then now() end, case when n % 10 = 0 then now() + interval '1 hour' end, 'es_connect'
      from generate_series(1, ${rows}) n;
    insert into outbox_leases (claim_batch_id, projection, ids) select '${batchId}', '${queue.projection}', array_agg(n) from generate_series(500, 599) n`),
  );

describe.each([0, 1000, 200_000])("with %d rows", (rows) => {
  beforeAll(async () => {
    await db.execute(sql.raw("truncate search_outbox_events, outbox_leases restart identity"));
    await db.execute(sql.raw(`vacuum analyze ${live}`));
    await db.execute(sql.raw("deallocate all"));
    await prepare();
    if (rows > 0) await fill(rows);
  }, 60_000);

  test("statements that were prepared for the empty table find their rows by index", async () => {
    await expectIndexes();
  });

  test("so do statements that are planned now, with statistics of the empty table", async () => {
    await db.execute(sql.raw("deallocate all"));
    await prepare();
    await expectIndexes();
  });

  test("so do they with fresh statistics", async () => {
    await db.execute(sql.raw(`vacuum analyze ${live}`));
    await db.execute(sql.raw("deallocate all"));
    await prepare();
    await expectIndexes();
  });
});

import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { checkSearch } from "../../src/projection/search/check.ts";
import { type BulkItem, bulkBody, sendBulk } from "../../src/search/bulk.ts";
import { ensureIndex } from "../../src/search/indices.ts";
import { emptyQueue, openSearch, recordSignals, runBatch, type Seed, seed } from "../support/batch.ts";
import { rejection } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";
import { openTargets } from "./targets.ts";

/** The index against Postgres, on engines that are not of the tests' making: the embedded one, and those of ELASTIC_CONTRACT_URL. */

const { db, close } = (await testDatabase()).open();
const recorded = recordSignals();
afterAll(close);

const live: Seed = { op: "upsert", version: 7n, row: "live" };
const deleted: Seed = { op: "delete", version: 7n, row: "tombstone" };

describe.each(await openTargets())("a check on %s", (_name, { client, newName }) => {
  let index = "";
  beforeEach(async () => {
    await emptyQueue(db);
    index = newName();
    await ensureIndex(client, { alias: index, environment: "test" });
  });
  const check = (signal = new AbortController().signal) =>
    checkSearch(db, client, { index, signal, onProgress: () => undefined });
  const project = () => runBatch(db, openSearch(db, client, { index }), recorded);
  /** By hand, past the queue. */
  const write = async (...items: BulkItem[]) => {
    const options = { timeoutMs: 10_000, signal: new AbortController().signal };
    const results = await sendBulk(client, index, items, bulkBody(items), options);
    expect(results.map((r) => r.kind === "answered" && r.status < 300)).toEqual(items.map(() => true));
  };
  const document = (id: string, version: bigint): BulkItem => ({
    op: "index",
    id,
    version,
    source: JSON.stringify({ entity_type: "tag", title: "by hand" }),
  });
  const changeRow = (id: string, version: number) =>
    db.execute(sql`update search_index set event_version = ${version} where entity_id = ${id}::uuid`);

  test("finds nothing wrong where the index holds what Postgres holds, however many pages that is", async () => {
    await seed(db, [...Array.from({ length: 2100 }, () => live), deleted, { ...deleted, row: "missing" }]);
    await project();
    expect(await check()).toEqual({ documents: 2100, waiting: 0, wrong: 0, differences: [] });
  });

  test("names every document that is missing, behind or ahead, or should not be there", async () => {
    const seeded = await seed(db, [live, live, live, live, deleted]);
    await project();
    const [, missing, behind, ahead, gone] = seeded.map(({ entityId }) => entityId);
    await changeRow(behind ?? "", 8);
    const unknown = crypto.randomUUID();
    await write(
      document(`tag:${ahead}`, 12n),
      { op: "delete", id: `tag:${missing}`, version: 9n },
      document(`tag:${gone}`, 13n),
      document(`tag:${unknown}`, 1n),
      document("somebody else's", 1n),
    );
    const { differences, ...counts } = await check();
    expect(counts).toEqual({ documents: 4, waiting: 0, wrong: 6 });
    expect(Object.fromEntries(differences.map(({ id, what, because }) => [id, [what, because]]))).toEqual({
      [`tag:${missing}`]: ["missing", null],
      [`tag:${behind}`]: ["behind", null],
      [`tag:${ahead}`]: ["ahead", null],
      [`tag:${gone}`]: ["deleted", null],
      [`tag:${unknown}`]: ["unknown", null],
      "somebody else's": ["unknown", null],
    });
  });

  test("counts what is on the way, and says of what has failed that it has", async () => {
    const [, failing] = await seed(db, [live, live, deleted]);
    await db.execute(
      sql`update search_outbox_events set status = 'failed', next_retry_at = 'infinity', error_reason = 'es_4xx' where id = ${failing?.id}`,
    );
    expect(await check()).toEqual({
      documents: 2,
      waiting: 1,
      wrong: 1,
      differences: [{ id: failing?.documentId ?? "", what: "missing", because: "failed" }],
    });
  });

  test("takes no document for wrong whose row changes while it is looked at", async () => {
    await seed(db, [live]);
    await project();
    const moveOn = () => db.execute(sql`update search_index set event_version = event_version + 1`);
    // Behind at each look; the row has always moved on by the next.
    const moving = Object.assign(Object.create(client) as typeof client, {
      mget: (async (request: Parameters<typeof client.mget>[0]) => {
        const answer = await client.mget(request);
        await moveOn();
        return answer;
      }) as typeof client.mget,
    });
    await moveOn();
    const options = { index, signal: new AbortController().signal, onProgress: () => undefined };
    expect(await checkSearch(db, moving, options)).toMatchObject({ waiting: 1, wrong: 0 });
    expect(await check()).toMatchObject({ waiting: 0, wrong: 1 });
  });

  test("ends when it is asked to, and says that it knows nothing of the rest", async () => {
    await seed(db, [live]);
    await project();
    expect(await rejection(check(AbortSignal.abort()))).toMatchObject({
      message: expect.stringContaining("stopped before the end"),
    });
  });
});

import { afterAll, beforeEach, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { wordloom } from "../support/cli.ts";
import { testDatabase } from "../support/postgres.ts";

const clone = await testDatabase();
const database = clone.open();
afterAll(() => database.close());
const env = { DATABASE_URL: clone.url, WORDLOOM_ENV: "test" };
const asked = ["replay", "--by", "ops", "--reason", "mapping fixed"];

beforeEach(async () => {
  await database.db.execute(sql`truncate search_outbox_events, outbox_replays`);
  await database.db.execute(sql`
    insert into search_outbox_events (id, entity_type, entity_id, op, event_version, status, next_retry_at, error_reason, error, attempts, counted_attempts)
    select i, 'tag', gen_random_uuid(), 'upsert', 1, 'failed', 'infinity', 'es_4xx', 'mapping', 10, 10 from generate_series(1, 5) i`);
});

const pending = async () =>
  (
    await database.db.execute<{ id: string }>(
      sql`select id::text from search_outbox_events where status = 'pending' order by id`,
    )
  ).map((r) => r.id);

test("a dry run names the oldest events up to the limit and changes nothing", async () => {
  const ended = await wordloom([...asked, "--limit", "2", "--dry-run", "--json"], env);
  expect(JSON.parse(ended.out)).toEqual({ projection: "search_index_to_elastic", replayed: ["1", "2"], dry_run: true });
  expect(await pending()).toEqual([]);
});

test("a replay revives what the dry run named, and leaves an audit row for each", async () => {
  expect((await wordloom([...asked, "--limit", "2"], env)).code).toBe(0);
  expect(await pending()).toEqual(["1", "2"]);
  const audit = await database.db.execute<{
    event_id: string;
    replayed_by: string;
    reason: string;
    error_reason: string;
    attempts: number;
  }>(sql`select event_id::text, replayed_by, reason, error_reason, attempts from outbox_replays order by event_id`);
  expect([...audit]).toEqual(
    ["1", "2"].map((event_id) => ({
      event_id,
      replayed_by: "ops",
      reason: "mapping fixed",
      error_reason: "es_4xx",
      attempts: 10,
    })),
  );
});

test("only the events that are named come back", async () => {
  await wordloom([...asked, "--id", "4", "--id", "5"], env);
  expect(await pending()).toEqual(["4", "5"]);
});

test("without a reason nothing is replayed", async () => {
  const ended = await wordloom(["replay", "--by", "ops"], env);
  expect(ended.code).toBe(2);
  expect(ended.err).toContain("reason");
  expect(await pending()).toEqual([]);
});

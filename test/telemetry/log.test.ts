import { afterAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { readConfig } from "../../src/config.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { testDatabase } from "../support/postgres.ts";

const database = (await testDatabase()).open();
afterAll(() => database.close());

const canary = "canary-4f1b";
const lines: string[] = [];
const log = openLog(readConfig({ LOG_JSON: "1", LOG_LEVEL: "trace" }), "wordloom-api", {
  write: (line: string) => void lines.push(line),
});

/** What the log makes of the error that `statement` fails with. */
async function logged(statement: ReturnType<typeof sql>): Promise<string> {
  lines.length = 0;
  const error: unknown = await database.db.execute(statement).then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(Error);
  log.error({ event: "test", exc_info: error });
  return lines.join("");
}

test("a failed query is logged with its text and place, and without its values", async () => {
  const id = crypto.randomUUID();
  const insert = sql`insert into tags (id, user_id, name) values (${id}, ${id}, ${canary})`;
  await database.db.execute(insert);
  const line = await logged(insert);
  expect(line).not.toContain(canary);
  expect(line).toContain("insert into tags");
  expect(line).toContain("23505");
  expect(line).toContain("tags_pkey");
});

test("a value that Postgres quotes in its message does not reach the log", async () => {
  const line = await logged(sql`select ${canary}::uuid`);
  expect(line).not.toContain(canary);
  expect(line).toContain("22P02");
});

test("every line has ts, level, event, service and the schema of its keys", async () => {
  lines.length = 0;
  log.warn({ event: "test" }, "words");
  expect(JSON.parse(lines[0] ?? "")).toMatchObject({
    level: "warn",
    event: "test",
    message: "words",
    service: "wordloom-api",
    obs_schema: "labs-009-v2",
    ts: expect.stringMatching(/^\d{4}-.*Z$/),
  });
});

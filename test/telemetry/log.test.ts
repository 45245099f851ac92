import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { context, trace } from "@opentelemetry/api";
import { sql } from "drizzle-orm";
import { readConfig } from "../../src/config.ts";
import { openLog, traceKeys } from "../../src/telemetry/log.ts";
import { oneWriteATurn } from "../../src/telemetry/one-write-a-turn.ts";
import { openTracing } from "../../src/telemetry/tracing.ts";
import { testDatabase } from "../support/postgres.ts";
import { spanMemory } from "../support/telemetry.ts";

const database = (await testDatabase()).open();
afterAll(() => database.close());

const src = join(import.meta.dir, "../../src");
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

test("the lines of one turn are one write, whole and in order", async () => {
  const writes: string[] = [];
  const target = oneWriteATurn({ write: (text) => void writes.push(text) });
  target.write("a\n");
  target.write("b\n");
  await Promise.resolve();
  target.write("c\n");
  await Promise.resolve();
  expect(writes).toEqual(["a\nb\n", "c\n"]);
});

test("the lines of the turn in which a process exits are written", () => {
  const source = `
    import { readConfig } from "${join(src, "config.ts")}";
    import { openLog } from "${join(src, "telemetry/log.ts")}";
    const log = openLog(readConfig({ LOG_JSON: "1" }), "wordloom-api");
    log.error({ event: "first" });
    log.fatal({ event: "second" });
    log.error({ event: "last" });
    process.exit(3);`;
  const { exitCode, stdout } = Bun.spawnSync([process.execPath, "-e", source]);
  const events = stdout
    .toString()
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).event);
  expect({ exitCode, events }).toEqual({ exitCode: 3, events: ["first", "second", "last"] });
});

test("a line that names a span of its own is not given the active one's", async () => {
  lines.length = 0;
  const on = readConfig({ WORDLOOM_TRACING_ENABLED: "1" });
  const { tracer, close } = openTracing(on, "api", "1", () => undefined, spanMemory());
  const active = tracer.startSpan("active");
  context.with(trace.setSpan(context.active(), active), () => {
    log.warn({ event: "test" });
    log.warn({ event: "test", trace_id: "t", span_id: "s" });
  });
  active.end();
  await close();
  expect(lines.map((line) => JSON.parse(line))).toMatchObject([traceKeys(active), { trace_id: "t", span_id: "s" }]);
});

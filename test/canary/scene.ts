import { afterAll, expect } from "bun:test";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { startCollector } from "../../src/embedded/collector/collector.ts";
import { startEngine } from "../../src/embedded/elasticsearch/engine.ts";
import { wordloom } from "../support/cli.ts";
import { testDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";
import { canary, openEvidence } from "./evidence.ts";
import { openDoor, openProxy } from "./servers.ts";

/** Postgres, the search engine and the collector, each behind something that repeats all that it is told, and the secrets that lead there. Of one test file. */

export const evidence = openEvidence();
const testbed = await testDatabase();
const database = testbed.open();
export const { db } = database;
export const folder = await mkdtemp(join(tmpdir(), "wordloom-canary-"));
// As root the embedded Postgres runs as another user, who must be able to enter.
await chmod(folder, 0o755);
export const door = await openDoor(testbed.address);
const engine = await startEngine({ dataDir: join(folder, "engine"), port: 0 });
export const elastic = openProxy(engine.url);
export const store = await startCollector({ dataDir: ":memory:", port: 0 });
export const otlp = openProxy(store.url);
afterAll(async () => {
  await database.close();
  await door.close();
  await elastic.refuse();
  await otlp.refuse();
  await engine.stop();
  await store.stop();
  await rm(folder, { recursive: true });
});

/** A canary in every secret of the configuration. */
export const secrets: Readonly<Record<string, string>> = {
  DATABASE_URL: `postgresql://${testbed.address.user}:${canary("dbpassword")}@/${testbed.name}?host=${door.folder}&password=${canary("dbparameter")}`,
  ELASTIC_URL: `http://${canary("esuser")}:${canary("espassword")}@127.0.0.1:${elastic.port}`,
  ELASTIC_API_KEY: canary("esapikey"),
  OTEL_EXPORTER_OTLP_ENDPOINT: `http://${canary("otlpuser")}:${canary("otlppassword")}@127.0.0.1:${otlp.port}`,
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `http://${canary("otlpuser")}:${canary("otlppassword")}@127.0.0.1:${otlp.port}/v1/traces?key=${canary("otlpquery")}`,
  OTEL_EXPORTER_OTLP_HEADERS: `authorization=Bearer%20${canary("otlpheader")},x-key=${canary("otlpkey")}`,
};
/** With these the user and the password of ELASTIC_URL are shown to the engine, not the key. */
const { ELASTIC_API_KEY: _, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: __, ...rest } = secrets;
export const withoutKey = rest;

export const common = {
  WORDLOOM_ENV: "test",
  WORDLOOM_DATA_DIR: join(folder, "data"),
  WORDLOOM_TRACING_ENABLED: "1",
  LOG_LEVEL: "trace",
  DATABASE_STATEMENT_TIMEOUT_MS: "500",
  ELASTIC_REQUEST_TIMEOUT_MS: "500",
  API_MAX_BODY_BYTES: "4096",
  OUTBOX_BASE_BACKOFF_SECONDS: "0.01",
  OUTBOX_MAX_BACKOFF_SECONDS: "0.05",
  OUTBOX_MAX_ATTEMPTS: "3",
  OUTBOX_DB_PING_INTERVAL_SECONDS: "0.1",
  OUTBOX_DB_PING_FAILS_BEFORE_DRAINING: "1",
};

/** What users write: a word, a quotation, and a line that looks like one of a stack. */
export const text = (of: string) =>
  `${canary(of)} 'quoted' "twice" [in]\n    at ${canary(of)} (a.ts:1:1)\nparams: ${canary(of)}`;
export const line = (of: string) => `${canary(of)} it's`;

/** Every reason that a row ever held, whatever it holds later. */
await db.execute(sql`create table told (place text, error text)`);
await db.execute(sql`
  create function tell() returns trigger language plpgsql as $$
  begin
    if new.error is not null then insert into told values (tg_table_name, new.error); end if;
    return null;
  end $$`);
for (const table of ["search_outbox_events_live", "chronicle_outbox_events_live", "outbox_replays"])
  await db.execute(
    sql`create trigger tell after insert or update on ${sql.identifier(table)} for each row execute function tell()`,
  );
/** What the database says to writes of these tables, when `trouble` holds a SQLSTATE: all of the row, in message, detail and hint. */
await db.execute(sql`create table trouble (code text)`);
await db.execute(sql`
  create function burst() returns trigger language plpgsql as $$
  begin
    if exists (select from trouble) then
      raise exception 'innards of %', new using errcode = (select code from trouble), detail = new::text, hint = new::text;
    end if;
    return new;
  end $$`);
for (const table of ["tags", "blocks", "chronicle_entries"])
  await db.execute(
    sql`create trigger burst before insert on ${sql.identifier(table)} for each row execute function burst()`,
  );
export async function withTrouble<T>(code: string, work: () => Promise<T>): Promise<T> {
  await db.execute(sql`insert into trouble values (${code})`);
  return await work().finally(() => db.execute(sql`delete from trouble`));
}

const open = async (queue: "search" | "chronicle") =>
  (
    await db.execute(
      sql`select id from ${sql.identifier(`${queue}_outbox_events`)} where status in ('pending', 'processing')`,
    )
  ).length;
/** Waits until both queues are empty. */
export const settled = () =>
  until("nothing waits", async () => (await open("search")) + (await open("chronicle")) === 0);

/** A command to its end, with one of these exit codes. */
export async function run(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  codes: number[],
): Promise<void> {
  const { code, out, err } = await wordloom(args, { ...common, ...env });
  evidence.add(`wordloom ${args[0]}`, out + err);
  expect(codes, `${args.join(" ")}: ${out}${err}`).toContain(code);
}

/** Nothing that was said may be a canary; where nothing was said that shows nothing, so all of this must have been. */
export function expectNothing(said: readonly (readonly [place: string, text: string | RegExp])[] = []): void {
  expect(evidence.finds()).toEqual([]);
  expect(said.filter(([place, text]) => !evidence.holds(place, text))).toEqual([]);
}

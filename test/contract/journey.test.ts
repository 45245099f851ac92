import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import type { Database } from "../../src/db/client.ts";
import { startEngine } from "../../src/embedded/elasticsearch/engine.ts";
import { connectElasticsearch } from "../../src/search/client.ts";
import { wordloom } from "../support/cli.ts";
import { cloneDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Process, startServe, startWork } from "../support/processes.ts";
import { until } from "../support/until.ts";

/** The whole road with real processes: what is written is found, what is deleted is not, whatever happens to the worker on the way. */

const root = join(import.meta.dir, "../..");
const corpus = join(root, "../shared/corpus");

/** Ten questions in each language, and the chapter that must be among the first answers. */
const questions = {
  "rust-book-en": {
    ownership: "ch04-01",
    "lifetime annotations": "ch10-03",
    "hash map": "ch08-03",
    "closures capture environment": "ch13-01",
    "iterator adapters": "ch13-02",
    "reference cycles": "ch15-06",
    mutex: "ch16-03",
    "unsafe superpowers": "ch20-01",
    "integer overflow": "ch03-02",
    "dangling reference": "ch04-02",
  },
  "rust-book-zh": {
    所有权: "ch04-01",
    生命周期注解: "ch10-03",
    "哈希 map": "ch08-03",
    "闭包 捕获 环境": "ch13-01",
    迭代器适配器: "ch13-02",
    引用循环: "ch15-06",
    互斥器: "ch16-03",
    "不安全 超能力": "ch20-01",
    整型溢出: "ch03-02",
    悬垂引用: "ch04-02",
  },
} as const;

type Hit = {
  entity_type: string;
  entity_id: string;
  title: string;
  snippet: string;
  path: string;
  book_id: string | null;
  library_id: string | null;
};
type Page = { total: number; hits: Hit[] };

const folder = mkdtempSync(join(tmpdir(), "wordloom-journey-"));
const engine = await startEngine({ dataDir: folder, port: 0 });
const external = (process.env["ELASTIC_CONTRACT_URL"] ?? "").split(",").filter((url) => url !== "");
afterAll(async () => {
  await engine.stop();
  rmSync(folder, { recursive: true });
});

for (const url of [engine.url, ...external]) {
  const client = await connectElasticsearch({ url, requestTimeoutMs: 20_000 });
  const { version } = await client.info();
  describe(`the road over ${url === engine.url ? "the embedded engine" : `Elasticsearch ${version?.number}`}`, () => {
    const index = `wordloom-test-${crypto.randomUUID().slice(0, 8)}`;
    let clone: TestDatabase;
    let database: Database;
    let env: Record<string, string>;
    let api: Process;
    let worker: Process;

    const livingRows = async () =>
      Number(
        (
          await database.db.execute<{ n: string }>(
            sql`select (select count(*) from search_outbox_events_live) + (select count(*) from chronicle_outbox_events_live) as n`,
          )
        )[0]?.n,
      );
    const drained = () => until("both queues to be empty", async () => (await livingRows()) === 0, 120_000);
    const count = async (query: object) => {
      await client.indices.refresh({ index });
      return (await client.count({ index, query })).count;
    };
    const search = async (path: string): Promise<Page> => {
      await client.indices.refresh({ index });
      const response = await fetch(`${api.url}/api/v1/search${path}`);
      expect(response.status).toBe(200);
      return (await response.json()) as Page;
    };
    const post = (path: string, body: unknown) =>
      fetch(`${api.url}/api/v1/${path}`, { method: "POST", body: JSON.stringify(body) });
    /** Per library: blocks in Postgres and block documents in the engine. */
    async function compareLibraries(): Promise<void> {
      const rows = await database.db.execute<{ id: string; blocks: string }>(sql`
        select k.library_id::text as id, count(*) as blocks from blocks b join books k on k.id = b.book_id
         where b.soft_deleted_at is null group by k.library_id`);
      expect(rows.length).toBeGreaterThan(0);
      for (const { id, blocks } of rows) {
        const filter = [{ term: { entity_type: "block" } }, { term: { library_id: id } }];
        expect(await count({ bool: { filter } })).toBe(Number(blocks));
      }
    }

    beforeAll(async () => {
      clone = await cloneDatabase();
      database = clone.open();
      env = {
        WORDLOOM_ENV: "test",
        DATABASE_URL: clone.url,
        ELASTIC_URL: url,
        ELASTIC_INDEX: index,
        LOG_LEVEL: "warn",
        OUTBOX_LEASE_SECONDS: "2",
        OUTBOX_RECLAIM_INTERVAL_SECONDS: "0.2",
        OUTBOX_POLL_INTERVAL_MS: "100",
      };
      api = await startServe(env);
      worker = await startWork(env, ["--worker-id", "w1"]);
    }, 60_000);

    afterAll(async () => {
      for (const process of [worker, api]) process?.kill("SIGTERM");
      await Promise.all([worker?.exited, api?.exited]);
      await client.indices.delete({ index: `${index}-000001`, ignore_unavailable: true });
      await database?.close();
      await clone?.drop();
    }, 60_000);

    test("a tag that was answered 201 is found a moment later, and after its deletion never again", async () => {
      const created = (await (await post("tags", { name: "marginalia", color: "#FFFFFF" })).json()) as { id: string };
      await drained();
      expect((await search("?q=marginalia")).hits.map((h) => h.entity_id)).toEqual([created.id]);
      expect((await fetch(`${api.url}/api/v1/tags/${created.id}`, { method: "DELETE" })).status).toBe(204);
      // Not served from the moment of the answer, whether the worker has been there or not.
      expect((await search("?q=marginalia")).hits).toEqual([]);
      await drained();
      expect(await count({ term: { entity_id: created.id } })).toBe(0);
    }, 60_000);

    test("a tag deleted while its upsert is pending is never found, in both orders of arrival", async () => {
      worker.kill("SIGTERM");
      await worker.exited;
      const ids: string[] = [];
      for (const name of ["ephemera one", "ephemera two"]) {
        const { id } = (await (await post("tags", { name })).json()) as { id: string };
        expect((await fetch(`${api.url}/api/v1/tags/${id}`, { method: "DELETE" })).status).toBe(204);
        ids.push(id);
      }
      // The second tag's upsert arrives long after its delete.
      await database.db.execute(sql`
        update search_outbox_events_live set next_retry_at = now() + interval '1 day' where entity_id = ${ids[1] ?? ""}::uuid and op = 'upsert'`);
      worker = await startWork(env, ["--worker-id", "w1"]);
      await until("all but the late upsert", async () => (await livingRows()) === 1);
      await database.db.execute(
        sql`update search_outbox_events_live set next_retry_at = now() where entity_id = ${ids[1] ?? ""}::uuid`,
      );
      await drained();
      for (const id of ids) expect(await count({ term: { entity_id: id } })).toBe(0);
      expect((await search("?q=ephemera")).hits).toEqual([]);
    }, 60_000);

    test("of 1,000 concurrent tag writes, half of them duplicates, every 201 is found and no 409 is", async () => {
      const names = Array.from({ length: 1000 }, (_, i) => `crowd ${i % 500}`);
      const answers = await Promise.all(
        names.map(async (name) => {
          const response = await post("tags", { name });
          return { status: response.status, id: ((await response.json()) as { id?: string }).id };
        }),
      );
      const created = answers.filter((a) => a.status === 201);
      expect(created.length).toBe(500);
      expect(answers.filter((a) => a.status === 409).length).toBe(500);
      await drained();
      const found = new Set<string>();
      for (let offset = 0; offset < 600; offset += 100)
        for (const hit of (await search(`/tags?q=crowd&limit=100&offset=${offset}`)).hits) found.add(hit.entity_id);
      expect(found).toEqual(new Set(created.flatMap((a) => a.id ?? [])));
    }, 120_000);

    test("an import survives three kills of its worker: counts are equal, and no row is left processing", async () => {
      const folder = existsSync(corpus) ? join(corpus, "rust-book-en/src") : join(root, "docs");
      const importing = wordloom(["import", folder, "--library", "English", "--json"], {
        ...env,
        WORDLOOM_ENV: "test",
      });
      for (let kill = 0; kill < 3; kill += 1) {
        await until("the worker to be in the middle of it", async () => {
          const [row] = await database.db.execute<{ n: string }>(
            sql`select count(*) as n from search_outbox_events_live where status = 'processing'`,
          );
          return Number(row?.n) > 0;
        });
        worker.kill("SIGKILL");
        await worker.exited;
        worker = await startWork(env, ["--worker-id", `w${kill + 2}`]);
      }
      expect((await importing).code).toBe(0);
      await drained();
      await compareLibraries();
      const [row] = await database.db.execute<{ failed: string }>(
        sql`select count(*) as failed from search_outbox_events where status in ('failed', 'processing')`,
      );
      expect(Number(row?.failed)).toBe(0);
    }, 180_000);

    if (existsSync(corpus)) {
      test("both books go in whole, and ten questions in each language find their chapter among the first answers", async () => {
        for (const [name, asked] of Object.entries(questions)) {
          const folder = join(corpus, name, "src");
          const library = name === "rust-book-en" ? "English" : name;
          const report = JSON.parse((await wordloom(["import", folder, "--library", library, "--json"], env)).out) as {
            files: number;
          };
          const files = readdirSync(folder, { recursive: true }).filter((f) => String(f).endsWith(".md"));
          expect(report.files).toBe(files.length);
          await drained();
          const [row] = await database.db.execute<{ id: string; books: string }>(sql`
            select l.id::text, count(b.id) as books from libraries l join books b on b.library_id = l.id where l.name = ${library} and b.soft_deleted_at is null group by l.id`);
          expect(Number(row?.books)).toBe(files.length);
          for (const [question, chapter] of Object.entries(asked)) {
            const { hits } = await search(`?q=${encodeURIComponent(question)}&library_id=${row?.id}`);
            const books = hits.flatMap((h) => (h.entity_type === "book" ? h.entity_id : (h.book_id ?? [])));
            const paths = await database.db.execute<{ source_path: string }>(
              sql`select distinct source_path from books where id = any(${`{${books.join(",")}}`}::uuid[])`,
            );
            expect({ question, found: paths.some((p) => p.source_path.includes(chapter)) }).toEqual({
              question,
              found: true,
            });
            expect(hits.some((h) => h.snippet.includes("<em>"))).toBe(true);
          }
        }
        await compareLibraries();
      }, 240_000);
    }

    test("SIGTERM ends API and worker with 0, and nothing is left in hand", async () => {
      worker.kill("SIGTERM");
      api.kill("SIGTERM");
      expect(await Promise.all([worker.exited, api.exited])).toEqual([0, 0]);
      const [row] = await database.db.execute<{ n: string }>(
        sql`select count(*) as n from search_outbox_events_live where status = 'processing'`,
      );
      expect(Number(row?.n)).toBe(0);
      api = await startServe(env);
      worker = await startWork(env);
    }, 60_000);
  });
}

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort, start, wordloom } from "../support/cli.ts";
import { cloneDatabase, testDatabase } from "../support/postgres.ts";
import { until } from "../support/until.ts";

const testbed = await testDatabase();
const folder = await mkdtemp(join(tmpdir(), "wordloom-processes-"));
// As root the embedded Postgres runs as another user, who must be able to enter.
await chmod(folder, 0o755);
afterAll(() => rm(folder, { recursive: true }));

// Several processes start in each of these, two cores between them and all other tests.
setDefaultTimeout(120_000);

/** A migrated database, and an embedded search engine of its own. */
const env = {
  WORDLOOM_ENV: "test",
  DATABASE_URL: testbed.url,
  WORDLOOM_DATA_DIR: join(folder, "shared"),
  EMBEDDED_ELASTIC_PORT: String(freePort()),
  OUTBOX_METRICS_PORT: "0",
  LOG_LEVEL: "warn",
};

type Running = ReturnType<typeof start> & { readonly printed: () => string };

const children = new Set<Running>();
afterAll(async () => {
  for (const child of children) child.kill("SIGKILL");
  await Promise.all([...children].map((child) => child.exited));
});

/** Starts a long-running command and collects what it prints. */
function run(args: readonly string[], more: Record<string, string> = {}): Running {
  const child = start(args, { ...env, ...more });
  let text = "";
  const read = async (stream: ReadableStream<Uint8Array>) => {
    for await (const chunk of stream.pipeThrough(new TextDecoderStream() as never)) text += String(chunk);
  };
  void read(child.stdout);
  void read(child.stderr);
  const running = Object.assign(child, { printed: () => text });
  children.add(running);
  return running;
}

/** Where a process listens, once it says so. */
async function listens(child: Running): Promise<string> {
  const address = /(?:listening at|wordloom is up at) (http:\/\/[^\s"]+)/;
  await until(
    () => `it listens: ${child.printed()}`,
    () => address.test(child.printed()) || child.exitCode !== null,
  );
  const [, url] = address.exec(child.printed()) ?? [];
  if (url === undefined) throw new Error(`it ended with ${child.exitCode}: ${child.printed()}`);
  return url;
}

const stop = async (child: Running, signal: NodeJS.Signals = "SIGTERM") => {
  child.kill(signal);
  return await child.exited;
};

const createTag = (url: string, name: string) =>
  fetch(`${url}/api/v1/tags`, { method: "POST", body: JSON.stringify({ name, color: "#FFFFFF" }) });
const hits = async (url: string, q: string): Promise<string[]> => {
  const response = await fetch(`${url}/api/v1/search?limit=100&q=${encodeURIComponent(q)}`);
  if (!response.ok) return [];
  const { hits: found } = (await response.json()) as { hits: { title: string }[] };
  return found.map((hit) => hit.title);
};
const found = (url: string, q: string) => until(`"${q}" is found`, async () => (await hits(url, q)).length > 0);

test("what one process writes another carries to search, and a third finds it", async () => {
  const [writer, worker] = [run(["serve", "--port", "0"]), run(["work", "--worker-id", "w1"])];
  const url = await listens(writer);
  expect((await createTag(url, "loomwork")).status).toBe(201);
  await found(url, "loomwork");
  const other = run(["serve", "--port", "0"]);
  await found(await listens(other), "loomwork");
  expect(await stop(worker)).toBe(0);
  expect(await stop(writer)).toBe(0);
  expect(await stop(other)).toBe(0);
});

test("the embedded engine lives on in another process when the one that runs it ends", async () => {
  const first = run(["serve", "--port", "0"]);
  const url1 = await listens(first);
  const second = run(["work"]);
  const third = run(["serve", "--port", "0"]);
  const url3 = await listens(third);
  await createTag(url1, "heirloom");
  await found(url3, "heirloom");
  expect(await stop(first)).toBe(0);
  await createTag(url3, "afterwards");
  await found(url3, "afterwards");
  expect(await hits(url3, "heirloom")).toEqual(["heirloom"]);
  expect([await stop(second), await stop(third)]).toEqual([0, 0]);
});

test("a worker that is killed again and again loses nothing and does nothing twice that can be seen", async () => {
  const own = await cloneDatabase();
  const database = own.open();
  const count = async (query: string) => Number((await database.db.execute<{ n: string }>(query))[0]?.n);
  const slowly = {
    DATABASE_URL: own.url,
    OUTBOX_BULK_SIZE: "20",
    OUTBOX_LEASE_SECONDS: "1",
    OUTBOX_RECLAIM_INTERVAL_SECONDS: "0.2",
    // Slow enough to be met in the middle of its work on any machine.
    OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS: "0.1",
  };
  const paragraphs = (file: number) => Array.from({ length: 20 }, (_, i) => `paragraph ${i} of ${file}`).join("\n\n");
  const dir = join(folder, "killed");
  await Promise.all(Array.from({ length: 40 }, (_, n) => Bun.write(join(dir, `${n}.md`), paragraphs(n))));
  expect((await wordloom(["import", dir, "--library", "Killed"], { ...env, DATABASE_URL: own.url })).code).toBe(0);

  const done = () => count("select count(*) as n from search_outbox_events where status = 'done'");
  for (let kill = 1; kill <= 3; kill += 1) {
    const before = await done();
    const worker = run(["work"], slowly);
    await until("it has done something", async () => (await done()) > before);
    worker.kill("SIGKILL");
    await worker.exited;
  }
  expect(
    await count("select count(*) as n from search_outbox_events where status in ('pending', 'processing')"),
  ).toBeGreaterThan(0);

  const [last, api] = [
    run(["work"], { DATABASE_URL: own.url }),
    run(["serve", "--port", "0"], { DATABASE_URL: own.url }),
  ];
  await until(
    "all is done",
    async () => (await count("select count(*) as n from search_outbox_events where status <> 'done'")) === 0,
  );
  const sources = await count("select count(*) as n from search_index where deleted_at is null");
  expect(await done()).toBe(sources);
  const engine = `http://127.0.0.1:${env.EMBEDDED_ELASTIC_PORT}/wordloom-test-search-index`;
  const [library] = await database.db.execute<{ id: string }>("select id from libraries");
  const found = await fetch(`${engine}/_count`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ query: { term: { library_id: library?.id } } }),
  });
  expect(await found.json()).toMatchObject({ count: sources });
  const page = (await (await fetch(`${await listens(api)}/api/v1/search?q=paragraph`)).json()) as { total: number };
  expect(page.total).toBe(800);
  expect([await stop(last), await stop(api)]).toEqual([0, 0]);
  await database.close();
  await own.drop();
});

test("a port in use is one line and exit code 1, for the API, the worker and the engine", async () => {
  const taken = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("mine"), reusePort: false });
  const port = String(taken.port);
  const api = await wordloom(["serve", "--port", port], env);
  expect(api.code).toBe(1);
  expect(api.err).toContain(`port ${port} on 127.0.0.1 is in use; give --port or set API_PORT`);
  const elsewhere = await wordloom(["serve", "--host", "192.0.2.1"], env);
  expect(elsewhere.code).toBe(1);
  expect(elsewhere.err).toContain("192.0.2.1 is not an address of this machine; correct --host or API_HOST");
  const worker = await wordloom(["work"], { ...env, OUTBOX_METRICS_PORT: port });
  expect(worker.code).toBe(1);
  expect(worker.err).toContain(`port ${port} on 127.0.0.1 is in use; set OUTBOX_METRICS_PORT`);
  const data = { WORDLOOM_DATA_DIR: join(folder, "engine-port"), EMBEDDED_ELASTIC_PORT: port };
  const engine = await wordloom(["serve", "--port", "0"], { ...env, ...data });
  expect(engine.code).toBe(1);
  expect(engine.err).toContain(`port ${port} of the embedded search engine is in use; set EMBEDDED_ELASTIC_PORT`);
  expect(api.err + worker.err + engine.err).not.toContain("    at ");
  await taken.stop(true);
});

test("a port in use is noticed with NODE_ENV=production too", async () => {
  const first = run(["serve", "--port", "0"], { NODE_ENV: "production" });
  const { port } = new URL(await listens(first));
  const second = await wordloom(["serve", "--port", port], { ...env, NODE_ENV: "production" });
  expect(second.code).toBe(1);
  expect(second.err).toContain("is in use");
  expect(await stop(first)).toBe(0);
});

test("an Elasticsearch that cannot be used is one line without secrets", async () => {
  const away = await wordloom(["up", "--port", "0"], { ...env, ELASTIC_URL: "http://elastic:s3cret@127.0.0.1:1" });
  expect(away.code).toBe(4);
  expect(away.err).toContain("wordloom: Elasticsearch at http://127.0.0.1:1 cannot be used");
  for (const command of [["serve", "--port", "0"], ["work"], ["up", "--port", "0"]]) {
    const wrong = await wordloom(command, { ...env, ELASTIC_URL: "elastic:s3cret@localhost:9200" });
    expect(wrong.code).toBe(2);
    expect(wrong.err).toContain("ELASTIC_URL is text of");
    expect(wrong.err).not.toContain("s3cret");
  }
  expect(away.err).not.toContain("s3cret");
  expect(away.err).not.toContain("    at ");
});

test("serve and work start while Elasticsearch is away, and what was written meanwhile is found when it is back", async () => {
  const port = String(freePort());
  const away = { ELASTIC_URL: `http://127.0.0.1:${port}` };
  const healthPort = String(freePort());
  const needed = { OUTBOX_REQUIRE_ES_READY: "1", OUTBOX_HTTP_PORT: healthPort };
  const [writer, worker] = [run(["serve", "--port", "0"], away), run(["work"], { ...away, ...needed })];
  const ready = () => fetch(`http://127.0.0.1:${healthPort}/readyz`).catch(() => undefined);
  const url = await listens(writer);
  expect((await createTag(url, "meanwhile")).status).toBe(201);
  expect((await fetch(`${url}/api/v1/search?q=meanwhile`)).status).toBe(503);
  await until(
    () => `the worker says so: ${worker.printed()}`,
    () => worker.printed().includes(`Elasticsearch at http://127.0.0.1:${port} cannot be used`),
  );
  const refused = await until("the worker answers", ready);
  expect(refused.status).toBe(503);
  expect(await refused.json()).toMatchObject({ reason: "dependency_unhealthy", state: "RUNNING" });
  const back = run(["serve", "--port", "0"], { EMBEDDED_ELASTIC_PORT: port, WORDLOOM_DATA_DIR: join(folder, "back") });
  await listens(back);
  await found(url, "meanwhile");
  await until("the worker is ready", async () => (await ready())?.status === 200);
  expect([await stop(worker), await stop(writer), await stop(back)]).toEqual([0, 0, 0]);
});

test("a running worker says what the engine answers when it comes back wrong, and goes on until it is right", async () => {
  const port = freePort();
  const worker = run(["work"], { ELASTIC_URL: `http://127.0.0.1:${port}` });
  const says = async (what: string) => {
    await until(
      () => `the worker says ${what}: ${worker.printed()}`,
      () => worker.printed().includes(what) || worker.exitCode !== null,
    );
    expect(worker.exitCode).toBe(null);
  };
  await says(`Elasticsearch at http://127.0.0.1:${port} cannot be used`);
  let answer = () => Response.json({ error: { type: "security_exception" }, status: 401 }, { status: 401 });
  const stranger = Bun.serve({ hostname: "127.0.0.1", port, fetch: () => answer(), reusePort: false });
  await says("HTTP 401 security_exception");
  answer = () => new Response("<html>no backend</html>", { status: 404, headers: { "content-type": "text/html" } });
  await says("HTTP 404");
  await stranger.stop(true);
  const own = { EMBEDDED_ELASTIC_PORT: String(port), WORDLOOM_DATA_DIR: join(folder, "wrong") };
  const back = run(["serve", "--port", "0"], own);
  const url = await listens(back);
  expect((await createTag(url, "afterall")).status).toBe(201);
  await found(url, "afterall");
  expect([await stop(worker), await stop(back)]).toEqual([0, 0]);
});

test("a server that is not Elasticsearch is refused", async () => {
  const stranger = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("hello") });
  const { code, err } = await wordloom(["work"], { ...env, ELASTIC_URL: stranger.url.origin });
  expect(code).toBe(4);
  expect(err).toContain("cannot be used");
  await stranger.stop(true);
});

test("serve and work refuse a database that lacks a migration", async () => {
  const fresh = await cloneDatabase();
  const database = fresh.open();
  await database.db.execute("delete from wordloom_migrations where name = (select max(name) from wordloom_migrations)");
  await database.close();
  for (const command of ["serve", "work"]) {
    const { code, err } = await wordloom([command], { ...env, DATABASE_URL: fresh.url });
    expect(code).toBe(5);
    expect(err).toContain("lacks 1 of its migrations; run `wordloom migrate`");
  }
  await fresh.drop();
});

test("what breaks things on purpose is refused outside of dev and test, before anything is opened", async () => {
  for (const command of ["work", "up"]) {
    const { code, err } = await wordloom([command], {
      OUTBOX_EXPERIMENT_BREAK_CLAIM: "1",
      OUTBOX_FAULT_INJECT_KIND: "transient",
    });
    expect(code).toBe(5);
    expect(err).toContain("OUTBOX_EXPERIMENT_BREAK_CLAIM, OUTBOX_FAULT_INJECT_KIND break things on purpose");
  }
});

test("the worker answers health and metrics, and OUTBOX_RUN_SECONDS ends it", async () => {
  const [metricsPort, healthPort] = [freePort(), freePort()];
  const worker = run(["work", "--projection", "search"], {
    OUTBOX_METRICS_PORT: String(metricsPort),
    OUTBOX_HTTP_PORT: String(healthPort),
    OUTBOX_RUN_SECONDS: "3",
  });
  const ready = () => fetch(`http://127.0.0.1:${healthPort}/readyz`).catch(() => undefined);
  await until("it is ready", async () => (await ready())?.status === 200);
  expect(await (await ready())?.json()).toMatchObject({ ok: true, projection: "search_index_to_elastic" });
  const page = await fetch(`http://127.0.0.1:${metricsPort}/metrics`);
  expect(await page.text()).toContain("outbox_");
  expect(await worker.exited).toBe(0);
  await until("it says why", () => /"state":"DRAINING","reason":"run_seconds"/.test(worker.printed()));
});

test("up starts all that is needed, greets with the documentation, and starts again on the same data", async () => {
  const own = {
    WORDLOOM_ENV: "sandbox",
    DATABASE_URL: "",
    WORDLOOM_DATA_DIR: join(folder, "up"),
    EMBEDDED_ELASTIC_PORT: String(freePort()),
  };
  const first = run(["up", "--port", "0"], own);
  const url = await listens(first);
  expect(first.printed()).toContain('imported as the library "Welcome"');
  const [, question = ""] = /curl '([^']+)'/.exec(first.printed()) ?? [];
  await until("the printed curl finds something", async () => {
    const page = (await (await fetch(question)).json()) as { total?: number };
    return (page.total ?? 0) > 0;
  });
  expect((await createTag(url, "zyzzyva")).status).toBe(201);
  await found(url, "zyzzyva");
  expect(await stop(first, "SIGINT")).toBe(0);

  const second = run(["up", "--port", "0"], own);
  const again = await listens(second);
  expect(second.printed()).not.toContain("Welcome");
  expect(await hits(again, "zyzzyva")).toEqual(["zyzzyva"]);
  expect(await stop(second)).toBe(0);
  expect(await Bun.file(join(folder, "up/postgres/cluster/postmaster.pid")).exists()).toBe(false);
  expect(first.printed() + second.printed()).not.toContain("\u001b[");
});

test("up --no-welcome leaves an empty database empty", async () => {
  const own = await cloneDatabase();
  const child = run(["up", "--port", "0", "--no-welcome"], {
    DATABASE_URL: own.url,
    EMBEDDED_ELASTIC_PORT: "0",
    WORDLOOM_DATA_DIR: join(folder, "bare"),
  });
  const url = await listens(child);
  expect(child.printed()).not.toContain("Welcome");
  expect(await hits(url, "outbox")).toEqual([]);
  expect(await stop(child)).toBe(0);
  await own.drop();
});

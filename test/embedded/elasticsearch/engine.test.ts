import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Engine, startEngine } from "../../../src/embedded/elasticsearch/engine.ts";
import { until } from "../../support/until.ts";

const source = join(import.meta.dir, "../../../src/embedded/elasticsearch");
const undo: (() => unknown)[] = [];

afterEach(async () => {
  for (const step of undo.splice(0).toReversed()) await step();
});

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "wordloom-engine-"));
  undo.push(() => rmSync(folder, { recursive: true }));
  return folder;
}

async function start(dataDir: string, port = 0): Promise<Engine> {
  const engine = await startEngine({ dataDir, port });
  undo.push(() => engine.stop());
  return engine;
}

/** The engine in a process of its own, which can be killed. */
async function spawnEngine(command: string[], dataDir: string): Promise<{ url: string; kill: () => Promise<void> }> {
  const child = Bun.spawn([...command, dataDir], { stdout: "pipe", stderr: "inherit", cwd: dataDir });
  const kill = async () => {
    child.kill("SIGKILL");
    await child.exited;
  };
  undo.push(kill);
  for await (const chunk of child.stdout) return { url: new TextDecoder().decode(chunk).trim(), kill };
  throw new Error(`the child ended with ${await child.exited} before it answered`);
}

const script = (engine: string) => `
  import { startEngine } from ${JSON.stringify(engine)};
  const { url } = await startEngine({ dataDir: process.argv.at(-1), port: 0 });
  process.stdout.write(url + "\\n");
`;

// biome-ignore lint/suspicious/noExplicitAny: replies are what the tests look into
async function send(url: string, method: string, path: string, body?: string): Promise<any> {
  const headers = { "content-type": "application/json" };
  const reply = await fetch(url + path, { method, ...(body === undefined ? {} : { headers, body }) });
  return reply.json();
}

const mapping = JSON.stringify({
  mappings: { dynamic: "strict", properties: { t: { type: "text", analyzer: "cjk" }, v: { type: "long" } } },
});
const lines = (from: number, count: number) =>
  Array.from(
    { length: count },
    (_, i) =>
      `{"index":{"_id":"${from + i}","version":5,"version_type":"external"}}\n{"t":"所有权 word${from + i}","v":${from + i}}\n`,
  ).join("");

describe("the embedded engine's data", () => {
  test("an acknowledged bulk is there after the process was killed", async () => {
    const folder = newFolder();
    const main = join(folder, "main.ts");
    await Bun.write(main, script(join(source, "engine.ts")));
    for (let round = 0; round < 3; round++) {
      const { url, kill } = await spawnEngine([process.execPath, main], folder);
      if (round === 0) await send(url, "PUT", "/i", mapping);
      const reply = await send(url, "POST", "/i/_bulk", lines(round * 100, 100));
      expect(reply.errors).toBe(false);
      // More writes are under way when the blow falls; of those nothing is promised but that they do no harm.
      const unanswered = send(url, "POST", "/i/_bulk", lines(10_000, 5_000)).catch(() => undefined);
      await kill();
      await unanswered;
    }
    const { url } = await start(folder);
    const found = await send(url, "POST", "/i/_count", '{"query":{"range":{"v":{"lt":10000}}}}');
    expect(found.count).toBe(300);
    const words = await send(
      url,
      "POST",
      "/i/_count",
      '{"query":{"bool":{"must":{"match":{"t":"所有"}},"filter":{"range":{"v":{"lt":10000}}}}}}',
    );
    expect(words.count).toBe(300);
    const late = await send(url, "POST", "/i/_bulk", lines(7, 1));
    expect(late.items[0].index.status).toBe(409);
  });

  test("a restart keeps indices, aliases, settings, notes, versions and deletions", async () => {
    const folder = newFolder();
    const first = await startEngine({ dataDir: folder, port: 0 });
    await send(
      first.url,
      "PUT",
      "/i",
      mapping.replace("{", '{"aliases":{"a":{}},"settings":{"index.gc_deletes":"24h"},'),
    );
    await send(first.url, "PUT", "/i/_mapping", '{"_meta":{"env":"test"}}');
    await send(
      first.url,
      "POST",
      "/a/_bulk",
      `${lines(0, 2)}{"delete":{"_id":"1","version":9,"version_type":"external"}}\n`,
    );
    const before = await send(first.url, "GET", "/i");
    const score = (await send(first.url, "POST", "/a/_search", '{"query":{"match":{"t":"所有"}}}')).hits.max_score;
    await first.stop();
    const { url } = await start(folder);
    expect(await send(url, "GET", "/i")).toEqual(before);
    expect((await send(url, "POST", "/a/_search", '{"query":{"match":{"t":"所有"}}}')).hits.max_score).toBe(score);
    const late = await send(url, "POST", "/a/_bulk", lines(1, 1));
    expect(late.items[0].index.error.reason).toBe(
      "[1]: version conflict, current version [9] is higher or equal to the one provided [5]",
    );
    expect(late.items[0].index.status).toBe(409);
    const next = await send(url, "POST", "/a/_bulk", '{"index":{"_id":"x"}}\n{"v":1}\n');
    expect(next.items[0].index["_seq_no"]).toBe(3);
  });

  test("a deletion is forgotten when index.gc_deletes has passed", async () => {
    const { url } = await start(newFolder());
    await send(url, "PUT", "/i", mapping.replace("{", '{"settings":{"index.gc_deletes":"0s"},'));
    await send(url, "POST", "/i/_bulk", '{"delete":{"_id":"1","version":9,"version_type":"external"}}\n');
    const write = () => send(url, "POST", "/i/_bulk", lines(1, 1));
    await until("an older version lands", async () => (await write()).items[0].index.status === 201, 5_000);
  });
});

describe("starting the embedded engine", () => {
  test("a folder that is in use is refused, and free again when its process was killed", async () => {
    const folder = newFolder();
    const main = join(folder, "main.ts");
    await Bun.write(main, script(join(source, "engine.ts")));
    const { kill } = await spawnEngine([process.execPath, main], folder);
    const refused = startEngine({ dataDir: folder, port: 0 });
    expect(refused).rejects.toThrow(`the search data in ${folder} is in use by another process`);
    await refused.catch(() => undefined);
    await kill();
    await start(folder);
  });

  test("a port that is in use is refused with the system's code, and the folder stays free", async () => {
    const folder = newFolder();
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    undo.push(() => new Promise((resolve) => other.close(resolve)));
    const address = other.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const failure = await startEngine({ dataDir: folder, port }).catch((error) => error);
    expect(failure.code).toBe("EADDRINUSE");
    expect(failure.message).toContain(String(port));
    await start(folder);
  });

  test("it listens on loopback alone", async () => {
    const { url } = await start(newFolder());
    expect(new URL(url).hostname).toBe("127.0.0.1");
  });

  test("a compiled binary runs it from an empty folder", async () => {
    const folder = newFolder();
    const main = join(folder, "main.ts");
    const binary = join(folder, "engine");
    await Bun.write(main, script(join(source, "engine.ts")));
    const worker = join(source, "worker.ts");
    const root = join(source, "../..");
    const built = Bun.spawnSync(
      [process.execPath, "build", main, worker, "--compile", `--root=${root}`, `--outfile=${binary}`],
      { cwd: folder },
    );
    expect(built.stderr.toString()).toBe("");
    const data = newFolder();
    const { url } = await spawnEngine([binary], data);
    expect((await send(url, "GET", "/")).version.number).toBe("9.2.2");
  });
});

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { drillsOf } from "../../src/labs/drills.ts";
import { filesIn, openFolder } from "../../src/labs/evidence.ts";
import { type DrillName, drillNames } from "../../src/labs/menu.ts";
import { type Result, verifyRun } from "../../src/labs/verify.ts";
import { type Ended, wordloom } from "../support/cli.ts";

/** Every drill once, on servers of the labs' own; what it leaves is then held to what it promises, and changed until it does not hold. */

setDefaultTimeout(120_000);
const home = mkdtempSync(join(tmpdir(), "wordloom-labs-"));
// As root the database runs as another user, who must be able to enter.
chmodSync(home, 0o755);
const outdir = join(home, "evidence");
const labs = (...args: string[]) =>
  wordloom(["labs", ...args, "--outdir", outdir], { HOME: home, WORDLOOM_DATA_DIR: join(home, "data") });
const folderOf = (name: DrillName) => join(outdir, name, "r1");
let ended: Ended;
beforeAll(async () => {
  ended = await labs("run", "all", "--run-id", "r1", "--json");
}, 240_000);
afterAll(() => rmSync(home, { recursive: true, force: true }));

/** A copy of a run, to change. */
function copyOf(name: DrillName): string {
  const dir = join(mkdtempSync(join(home, "copy-")), "r1");
  cpSync(folderOf(name), dir, { recursive: true });
  return dir;
}

const json = (dir: string, name: string): unknown => JSON.parse(readFileSync(join(dir, name), "utf8"));
const failedIn = ({ checks }: Result) => checks.filter(({ ok }) => !ok).map(({ name }) => name);

test("every drill comes to its end, and says where its evidence is", () => {
  expect(ended.code, ended.err).toBe(0);
  expect(JSON.parse(ended.out)).toEqual(
    drillNames.map((scenario) => ({ scenario, run_id: "r1", run_dir: folderOf(scenario) })),
  );
});

test("the evidence of every drill holds, says verify, and keeps what it found beside it", async () => {
  const verified = await labs("verify", "all", "--json");
  expect({ code: verified.code, err: verified.err }).toEqual({ code: 0, err: "" });
  const results = JSON.parse(verified.out) as Result[];
  expect(results.map(({ scenario, ok }) => [scenario, ok])).toEqual(drillNames.map((name) => [name, true]));
  for (const result of results) expect(json(result.run_dir, "_result.json")).toEqual(result);
});

test("a run has the files of the operator documents", () => {
  const common = ["_recipe.json", "_outbox_event_id.txt", "_entity_id.txt", "_claim_batch_id.txt"];
  const wanted: Partial<Record<DrillName, string[]>> = {
    es_down_connect: ["_metrics/metrics-before.txt", "_metrics/metrics-after.txt", "_logs/worker-r1.log"],
    db_claim_contention: ["_metrics/metrics-before-1.txt", "_metrics/metrics-after-2.txt", "_logs/worker1-r1.log"],
    stuck_reclaim: [
      "_metrics/metrics-before-2.txt",
      "_metrics/metrics-after-2.txt",
      "_logs/worker1-r1.log",
      "_logs/worker2-r1.log",
    ],
    projection_version: [
      "_probe_entry_v1.json",
      "_probe_entry_v2.json",
      "_logs/worker-v1-r1.log",
      "_logs/worker-v2-r1.log",
    ],
  };
  for (const name of drillNames) {
    const files = filesIn(folderOf(name));
    expect(files).toEqual(expect.arrayContaining([...common, ...(wanted[name] ?? [])]));
    for (const kind of ["services", "operations", "traces-tags"])
      expect(files.some((file) => file.startsWith(`_exports/jaeger-${kind}-`))).toBe(true);
    expect(json(folderOf(name), "_recipe.json")).toMatchObject({ lab_id: "S3A-2A-3A", scenario: name, run_id: "r1" });
  }
});

/** Ways in which evidence can be other than it should be. */
const changes: Readonly<Record<string, (dir: string) => void>> = {
  "counters that do not rise": (dir) => {
    for (const name of filesIn(dir).filter((file) => file.startsWith("_metrics/metrics-after")))
      cpSync(join(dir, name.replace("after", "before")), join(dir, name));
  },
  "counters of failures that rise": (dir) => {
    const names = ["outbox_failed_total", "outbox_terminal_failed_total", "outbox_retry_scheduled_total"];
    const labels = 'projection="search_index_to_elastic",op="upsert",reason="es_5xx"';
    const more = names.map((name) => `${name}{${labels}} 1000`).join("\n");
    for (const name of filesIn(dir).filter((file) => file.startsWith("_metrics/metrics-after")))
      writeFileSync(join(dir, name), `${readFileSync(join(dir, name), "utf8")}\n${more}\n`);
  },
  "an event that is not done": (dir) => {
    const rows = json(dir, "_rows.json") as { status: string }[];
    writeFileSync(join(dir, "_rows.json"), JSON.stringify(rows.map((row) => ({ ...row, status: "failed" }))));
  },
  "an event that is gone": (dir) => {
    const rows = json(dir, "_rows.json") as object[];
    writeFileSync(join(dir, "_rows.json"), JSON.stringify(rows.slice(1)));
  },
  "an event that is there twice": (dir) => {
    const [first, , ...rest] = json(dir, "_rows.json") as object[];
    writeFileSync(join(dir, "_rows.json"), JSON.stringify([first, first, ...rest]));
  },
  "no count of what was appended": (dir) => rmSync(join(dir, "_appended.json")),
  "rows that nobody took over": (dir) => {
    const rows = json(dir, "_rows.json") as object[];
    writeFileSync(join(dir, "_rows.json"), JSON.stringify(rows.map((row) => ({ ...row, last_reclaimed_by: null }))));
  },
  "a document of another version": (dir) => {
    const pairs = json(dir, "_documents.json") as object[];
    writeFileSync(join(dir, "_documents.json"), JSON.stringify(pairs.map((p) => ({ ...p, target_version: "999" }))));
  },
  "no log lines": (dir) => {
    for (const name of readdirSync(join(dir, "_logs"))) writeFileSync(join(dir, "_logs", name), "");
  },
  "no traces": (dir) => {
    for (const name of filesIn(dir).filter((file) => file.startsWith("_exports/jaeger-traces-")))
      writeFileSync(join(dir, name), '{"data":[]}');
  },
  "no audit of a replay": (dir) => rmSync(join(dir, "_replays.json"), { force: true }),
  "a worker that failed": (dir) => writeFileSync(join(dir, "_worker_exit.json"), '{"code":1}'),
  "entries of other events and versions": (dir) => {
    for (const version of [1, 2])
      writeFileSync(join(dir, `_probe_entry_v${version}.json`), JSON.stringify({ id: version, projection_version: 7 }));
  },
};

describe.each(drillNames.map((name) => [name]))("%s", (name) => {
  const [drill] = drillsOf([name]);
  if (drill === undefined) throw new Error("no such drill");
  const sealed = "the evidence is as the run left it";

  test("each of its checks fails for evidence that is otherwise", () => {
    const names = verifyRun(drill, folderOf(name)).result.checks.map((check) => check.name);
    expect(new Set(names).size).toBe(names.length);
    const failed = new Set<string>();
    for (const change of Object.values(changes)) {
      const dir = copyOf(name);
      change(dir);
      openFolder(dir).seal();
      for (const check of failedIn(verifyRun(drill, dir).result)) failed.add(check);
    }
    expect(names.filter((check) => !failed.has(check))).toEqual([sealed]);
  });

  test("an event that is lost, or there twice, is missed, and so is the count that would tell", () => {
    for (const change of ["an event that is gone", "an event that is there twice", "no count of what was appended"]) {
      const dir = copyOf(name);
      changes[change]?.(dir);
      openFolder(dir).seal();
      expect(failedIn(verifyRun(drill, dir).result)).toContain("every event that was appended is done");
    }
  });

  test("evidence of another shape is evidence that is not there", () => {
    for (const text of ["null", "[]", "{}", '{"data":[null,{"spans":[{}]}]}', "{"]) {
      const dir = copyOf(name);
      for (const file of filesIn(dir).filter((path) => path.endsWith(".json"))) writeFileSync(join(dir, file), text);
      openFolder(dir).seal();
      expect(verifyRun(drill, dir).result.ok).toBe(false);
      writeFileSync(join(dir, "_manifest.json"), text);
      expect(verifyRun(drill, dir).result.ok).toBe(false);
    }
  });

  test("a file that was changed, is gone or came later breaks the seal, and so does a run without an end", () => {
    const breaks: ((dir: string) => void)[] = [
      (dir) => writeFileSync(join(dir, "_recipe.json"), `${readFileSync(join(dir, "_recipe.json"), "utf8")} `),
      (dir) => rmSync(join(dir, "_entity_id.txt")),
      (dir) => writeFileSync(join(dir, "_logs", "more.log"), ""),
      (dir) => rmSync(join(dir, "_manifest.json")),
    ];
    for (const change of breaks) {
      const dir = copyOf(name);
      change(dir);
      expect(failedIn(verifyRun(drill, dir).result)).toEqual([sealed]);
    }
  });
});

test("evidence that does not hold ends verify with 10, one line and what was found; nothing is added to it", async () => {
  const dir = copyOf("stuck_reclaim");
  const other = join(dir, "../..");
  cpSync(dir, join(other, "moved", "stuck_reclaim", "r1"), { recursive: true });
  rmSync(join(other, "moved", "stuck_reclaim", "r1", "_rows.json"));
  const env = { HOME: home, WORDLOOM_DATA_DIR: join(home, "data") };
  const verified = await wordloom(["labs", "verify", "stuck_reclaim", "--outdir", join(other, "moved")], env);
  expect(verified.code).toBe(10);
  expect(verified.err).toBe("wordloom: the evidence of stuck_reclaim failed verification\n");
  expect(verified.out).toContain(
    'FAIL  the evidence is as the run left it: expected every file as _manifest.json has it, found ["_rows.json"]',
  );
  const exported = await wordloom(["labs", "export", "stuck_reclaim", "--outdir", join(other, "moved")], env);
  expect(exported.code).toBe(10);
  expect(exported.err).toContain("has changed since its run (_rows.json); nothing was added");
});

test("traces can be exported again, and the evidence still holds", async () => {
  const before = filesIn(folderOf("es_429_inject")).length;
  const exported = await labs("export", "es_429_inject", "--limit", "5");
  expect(exported).toMatchObject({ code: 0, err: "" });
  expect(exported.out).toMatch(/^[1-9]\d* traces? in /);
  expect(filesIn(folderOf("es_429_inject")).length).toBeGreaterThan(before);
  expect((await labs("verify", "es_429_inject")).code).toBe(0);
});

test("what a drill wrote is gone when it has ended: the next one finds nothing in the queue, and a run of its name is refused", async () => {
  const again = await labs("run", "es_429_inject", "--run-id", "r2", "--every-n", "1", "--trigger-count", "1");
  expect(again.code, again.err).toBe(0);
  expect(again.out).toBe(`${join(outdir, "es_429_inject", "r2")}\n`);
  const taken = await labs("run", "es_429_inject", "--run-id", "r2");
  expect(taken.code).toBe(1);
  expect(taken.err).toContain("there is a run of that name; give another --run-id or --outdir");
});

test("clean keeps the newest runs", async () => {
  const cleaned = await labs("clean", "es_429_inject", "--keep-last", "1", "--data");
  expect(cleaned).toEqual({ code: 0, out: "1 run removed, and the data of the labs' own servers\n", err: "" });
  expect(readdirSync(join(outdir, "es_429_inject"))).toEqual(["r2"]);
  expect(readdirSync(join(home, "data"))).toEqual([]);
  expect((await labs("verify", "es_429_inject", "--run-id", "r1")).err).toContain(
    "start one with `wordloom labs run es_429_inject`",
  );
});

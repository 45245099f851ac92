import { expect, test } from "bun:test";
import { dirname, join, relative } from "node:path";
import { Glob } from "bun";

/**
 * Who may import whom: a folder of src, or a file that stands directly in it. What is below all may be imported by everybody, and imports nothing but what
 * is below all itself. Type-only imports count: to know a type is to know its owner.
 */
const belowAll = ["config", "errors", "events", "pause", "telemetry"];
const mayImport: Readonly<Record<string, readonly string[]>> = {
  main: ["cli"],
  cli: ["app", "labs", "library", "version"],
  app: ["db", "embedded", "http", "labs", "library", "outbox", "projection", "search", "version"],
  http: ["db", "library", "outbox", "search"],
  labs: ["db", "outbox"],
  library: ["db", "outbox"],
  outbox: ["db"],
  projection: ["db", "outbox", "search"],
  search: [],
  db: [],
  embedded: [],
  version: [],
  config: [],
  errors: [],
  events: [],
  pause: [],
  telemetry: [],
};

const src = join(import.meta.dir, "../src");
const files = [...new Glob("**/*.ts").scanSync(src)].filter((path) => !path.endsWith(".d.ts")).toSorted();
const sources = new Map(
  await Promise.all(files.map(async (path) => [path, await Bun.file(join(src, path)).text()] as const)),
);

/** `http/tags.ts` → `http`, `app.ts` → `app`. */
const stationOf = (path: string) => path.split("/")[0]?.replace(/\.ts$/, "") ?? "";

/** Everything of this repository's own that a file names in an import or re-export, types and `import()` included, relative to src. */
function importsOf(path: string, source: string): string[] {
  const named = source.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"(\.[^"]+)"/g);
  return [...named].map(([, target = ""]) => relative(src, join(src, dirname(path), target)));
}

/** Every import between stations, as `from → to` with an example. */
function edges(of: ReadonlyMap<string, string>): Map<string, string> {
  const found = new Map<string, string>();
  for (const [path, source] of of)
    for (const target of importsOf(path, source)) {
      const [from, to] = [stationOf(path), stationOf(target)];
      if (from !== to && !target.startsWith("..")) found.set(`${from} → ${to}`, `${path} imports ${target}`);
    }
  return found;
}

function violations(of: ReadonlyMap<string, string>): string[] {
  return [...edges(of)].flatMap(([edge, example]) => {
    const [from = "", to = ""] = edge.split(" → ");
    const allowed = belowAll.includes(to) || (mayImport[from] ?? []).includes(to);
    return allowed ? [] : [`${edge} is not allowed: ${example}`];
  });
}

test("imports go only where the map says", () => {
  expect(violations(sources)).toEqual([]);
});

test("the map is read from types, re-exports and dynamic imports too", () => {
  const planted = (line: string) => violations(new Map([["outbox/claim.ts", line]]));
  for (const line of [
    'import { bulk } from "../search/bulk.ts";',
    'import type { Bulk } from "../search/bulk.ts";',
    'import { a,\n  type B } from "../search/bulk.ts";',
    'export { bulk } from "../search/bulk.ts";',
    'const { bulk } = await import("../search/bulk.ts");',
    'import "../search/bulk.ts";',
  ])
    expect(planted(line)).toEqual(["outbox → search is not allowed: outbox/claim.ts imports search/bulk.ts"]);
});

test("what the bundler sees, the map has seen", () => {
  const transpiler = new Bun.Transpiler({ loader: "ts" });
  for (const [path, source] of sources) {
    const bundled = transpiler
      .scanImports(source)
      .map((i) => i.path)
      .filter((p) => p.startsWith("."));
    const seen = importsOf(path, source);
    for (const target of bundled) expect(seen).toContain(relative(src, join(src, dirname(path), target)));
  }
});

test("every station is on the map, and every edge of the map is used", () => {
  expect([...new Set(files.map(stationOf))].toSorted()).toEqual(Object.keys(mayImport).toSorted());
  const used = edges(sources);
  const unused = Object.entries(mayImport).flatMap(([from, all]) =>
    all.map((to) => `${from} → ${to}`).filter((edge) => !used.has(edge)),
  );
  expect(unused).toEqual([]);
});

test("no station reaches itself through others", () => {
  const used = [...edges(sources).keys()].map((edge) => edge.split(" → "));
  const reachable = (from: string, seen = new Set<string>()): Set<string> => {
    for (const [a, b = ""] of used)
      if (a === from && !seen.has(b)) {
        seen.add(b);
        reachable(b, seen);
      }
    return seen;
  };
  expect(Object.keys(mayImport).filter((station) => reachable(station).has(station))).toEqual([]);
});

const filesWith = (pattern: RegExp) => [...sources].filter(([, source]) => pattern.test(source)).map(([path]) => path);

test("the environment is read in main alone, and handed on", () => {
  expect(filesWith(/\bprocess\.env\b|\bBun\.env\b|import\.meta\.env\b/)).toEqual(["main.ts"]);
});

test("SQL is pasted together from constants alone: its text is shown in spans", () => {
  expect(filesWith(/\bsql\.raw\b|\binlineParams\b/)).toEqual(["db/migrate.ts", "outbox/settle.ts"]);
});

test("only outbox speaks SQL to the queues", () => {
  const elsewhere = filesWith(/_outbox_events/).filter((path) => stationOf(path) !== "outbox");
  expect(elsewhere).toEqual([]);
});

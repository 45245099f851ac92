import { expect, test } from "bun:test";
import { join } from "node:path";
import { Glob } from "bun";
import { obsSchema } from "../../src/telemetry/keys.ts";
import recorded from "./schema.json";

/**
 * What spans and log lines are searched by: queries, dashboards and drills break when a key goes or changes its meaning, so the name of the schema goes up with the
 * set. schema.json holds the set of each schema; the one of a schema that was released is never edited.
 */

const src = join(import.meta.dir, "../../src");

/** Properties of lower-case names in the signals that are no keys: what it hands out and what it passes to the SDK. */
const codeWords = new Set(
  `abandon about appended at attributes base blamed bytes chronicled close closed code config context database delete documents dropped end ended experiment export failed fd formatters half_open hastened
  headers host hostname id identity ignore index kind labels limit labs links log lost metrics mixin name open ops outcome past pool port prepared producers projections pruned query quiet reasons
  refused request resource root run said scopes searched seconds serializers services settled shared shutdown span sparingly startup success sync timestamp told trace tracer tracing verb`.split(
    /\s+/,
  ),
);

/** Every name of a property in the file's code, types left out: a key of the schema is never in camel case. */
async function propertiesOf(path: string): Promise<string[]> {
  const code = new Bun.Transpiler({ loader: "ts" }).transformSync(await Bun.file(join(src, path)).text());
  const names = code.matchAll(/[{,]\s*(?:"([a-z][a-z0-9_.]*)"(?=\s*:)|([a-z][a-z0-9_]*)(?=\s*[:,}]))/g);
  return [...names].map(([, quoted, plain]) => quoted ?? plain ?? "");
}

/** Keys that are named where they arise, such as those of an experiment; and their ends, where they are put together. Drills only look for them. */
async function namespacedKeys(): Promise<string[]> {
  const files = [...new Glob("**/*.ts").scanSync(src)].filter((path) => !/^(?:embedded|labs)\//.test(path));
  const named = /"(wordloom\.[a-z0-9_.]+)"|\[`\$\{\w+\}\.([a-z0-9_.]+)`\]/g;
  const sources = await Promise.all(files.map((path) => Bun.file(join(src, path)).text()));
  return sources.flatMap((source) => [...source.matchAll(named)].map(([, key, end]) => key ?? `….${end}`));
}

test("the keys of spans and log lines change only together with the name of their schema", async () => {
  const tellers = [
    "signals",
    "request-signals",
    "database-signals",
    "worker-signals",
    "batch-signals",
    "batch-result",
    "event-signals",
    "log",
    "tracing",
    "reclaim-signals",
    "bulk-signals",
  ].map((name) => `telemetry/${name}.ts`);
  const named = (await Promise.all(tellers.map(propertiesOf))).flat();
  const keys = [...new Set([...named.filter((name) => !codeWords.has(name)), ...(await namespacedKeys())])].toSorted();
  const schemas: Readonly<Record<string, readonly string[]>> = recorded;
  expect(
    keys,
    `new keys want a new name in obsSchema, and their set under it in ${import.meta.dir}/schema.json`,
  ).toEqual([...(schemas[obsSchema] ?? [])]);
});

test("each schema that was ever in use is kept with its keys", () => {
  expect(Object.keys(recorded)).toContain("labs-009-v2");
  for (const keys of Object.values(recorded)) expect(keys).toEqual(keys.toSorted());
});

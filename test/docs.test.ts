import { expect, test } from "bun:test";
import { dirname, join, normalize } from "node:path";
import { Glob } from "bun";
import { pages } from "../tools/docs.ts";

const root = join(import.meta.dir, "..");

test("the reference pages are what the code says; otherwise run `bun tools/docs.ts`", async () => {
  for (const [path, page] of await pages()) expect(await Bun.file(join(root, path)).text()).toBe(page);
});

const documents = ["README.md", "CHANGELOG.md", ...new Glob("docs/**/*.md").scanSync(root)];

test.each(documents)("every link of %s inside the repository leads somewhere", async (path) => {
  const text = await Bun.file(join(root, path)).text();
  const targets = [...text.matchAll(/\]\(([^)#]+)\)/g)].map(([, target = ""]) => target);
  for (const target of targets.filter((t) => !/^[a-z]+:/.test(t))) {
    const there = Bun.file(join(root, normalize(join(dirname(path), target))));
    const stat = await there.stat().catch(() => undefined);
    expect(stat, `${path} links to ${target}`).toBeDefined();
  }
});

test("every file that the documents name as the way of an event is there", async () => {
  const text = await Bun.file(join(root, "docs/architecture.md")).text();
  const [, way = ""] = /```\n([\s\S]+?)```/.exec(text) ?? [];
  const named = [...way.matchAll(/\b(?:http|library|outbox|projection|search|telemetry)\/[a-z/-]+/g)].map(
    ([name]) => name,
  );
  expect(named.length).toBeGreaterThan(12);
  for (const name of named) expect(await Bun.file(join(root, `src/${name}.ts`)).exists(), name).toBe(true);
});

import { expect, test } from "bun:test";
import { readMarkdown } from "../../src/library/markdown.ts";

const types = (text: string) => readMarkdown(text).blocks.map((b) => b.type);

test.each([
  ["# a", "heading"],
  ["a\n===", "heading"],
  ["plain **text**", "text"],
  ["<div>html</div>", "text"],
  ["```rust\nfn main() {}\n```", "code"],
  ["    indented", "code"],
  ["> said", "quote"],
  ["- a\n- b", "list"],
  ["1. a", "list"],
  ["- [ ] open\n- [x] done", "todo_list"],
  ["| a |\n|---|\n| 1 |", "table"],
  ["***", "divider"],
  ["![alt](a.png)", "image"],
  ["![alt](a.png) and words", "text"],
] as const)("%j is one block of type %s", (text, type) => {
  expect(types(text)).toEqual([type]);
});

test("a block is its raw Markdown without the blank lines around it", () => {
  const { blocks } = readMarkdown("\n\n# A *b*\n\n\n    code\n      more\n\n");
  expect(blocks).toEqual([
    { type: "heading", content: "# A *b*", headingLevel: 1 },
    { type: "code", content: "    code\n      more", headingLevel: null },
  ]);
});

test("blank lines and link definitions make no block", () => {
  expect(types("\n  \n[a]: https://example.org\n\n")).toEqual([]);
});

test("the title is the first heading's words, whatever its level", () => {
  expect(readMarkdown("text\n\n## The `Box<T>` **type** &c ![x](y) [link](z)\n\n# later").title).toBe(
    "The Box<T> type &c x link",
  );
  expect(readMarkdown("text").title).toBeUndefined();
  expect(readMarkdown("#\n\n# b").title).toBe("b");
});

test("a log of any length is read, a line at a time, and a heading of any width", () => {
  const line = "2026-11-23 INFO something happened somewhere, and was written down\n";
  const { blocks } = readMarkdown(line.repeat(50_000));
  expect(blocks.map((block) => block.content).join("\n")).toBe(line.repeat(50_000).trimEnd());
  expect(readMarkdown(`# ${"_a".repeat(40_000)}`).blocks).toMatchObject([{ type: "heading", headingLevel: 1 }]);
});

test("front matter is one text block and gives no title", () => {
  const { title, blocks } = readMarkdown("---\ntitle: x\ntags: [a]\n---\n# A\n");
  expect(title).toBe("A");
  expect(blocks.map((b) => [b.type, b.content])).toEqual([
    ["text", "---\ntitle: x\ntags: [a]\n---"],
    ["heading", "# A"],
  ]);
});

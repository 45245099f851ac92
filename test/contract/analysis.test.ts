import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Glob } from "bun";
import fc from "fast-check";
import { analyzeCjk } from "../../src/embedded/elasticsearch/analysis/cjk.ts";
import { openTargets } from "./targets.ts";

const shown = (text: string) =>
  analyzeCjk(text).map(({ token, start, end, type, position }) => ({
    token,
    start_offset: start,
    end_offset: end,
    type,
    position,
  }));

/** Pieces that word-break rules, width folding and bigrams stumble over, alone and next to each other. */
const pieces = [
  Array.from("aZ19 _.,;:'’\"-#*@\n\t中文字所有权々〇ひらがなカタカナー한국어ไทยລາວខ្មែរမြန်မာéñßıİΣσςאבעربية"),
  Array.from("ｱｶﾞﾊﾟﾞﾟｰＡｂ１！～　・゛ヽヾゝゞ㍿Ⅷ①𠀀𠮷😀❤️👍🏽"),
  ["1,000.5", "can't", "O'Neil's", "e.g.", "foo_bar", "the", "www", "a.b", "x-y", "12:30", "3.14", 'א"ב', "\u00ad"],
  ["\u200d", "\u200c", "\ufe0f", "\u20e3", "1️⃣", "#️⃣", "👩‍👩‍👧‍👦", "👩🏽‍🚀", "🇩🇪", "🇩🇪🇫", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "e\u0301", "か\u3099"],
  ["\u0301", "ﾜﾞｳﾞ", "\u{1F1E6}", "\u2060", "\ufeff", "x".repeat(254), "中".repeat(130), "\u{10ffff}", "😀".repeat(130)],
  ["http://a.b/c?d=1", "Straße", "ǅ", "ﬁ", "\u0000", "\u0085", "\u2028"],
].flat();

const hostile = fc.array(
  fc.oneof(
    fc.constantFrom(...pieces),
    fc.string({ unit: "grapheme", maxLength: 3 }),
    fc.string({ unit: "binary", maxLength: 2 }),
  ),
  {
    maxLength: 24,
  },
);

describe.each(await openTargets())("the analyzer cjk on %s", (_name, target) => {
  const analyze = async (text: string | string[]) =>
    (await target.send("POST", "/_analyze", { analyzer: "cjk", text })).json.tokens;

  test("words in lower case, bigrams of Chinese, no stop words", async () => {
    expect(await analyze("The 所有权 of Rust's 中")).toEqual([
      { token: "所有", start_offset: 4, end_offset: 6, type: "<DOUBLE>", position: 1 },
      { token: "有权", start_offset: 5, end_offset: 7, type: "<DOUBLE>", position: 2 },
      { token: "rust's", start_offset: 11, end_offset: 17, type: "<ALPHANUM>", position: 4 },
      { token: "中", start_offset: 18, end_offset: 19, type: "<SINGLE>", position: 5 },
    ]);
  });

  test("every kind of token keeps its type", async () => {
    const types = (await analyze("abc 1,000.5 中 ไทย 😀 한국 カナ")).map(
      ({ token, type }: { token: string; type: string }) => [token, type],
    );
    expect(types).toEqual([
      ["abc", "<ALPHANUM>"],
      ["1,000.5", "<NUM>"],
      ["中", "<SINGLE>"],
      ["ไทย", "<SOUTHEAST_ASIAN>"],
      ["😀", "<EMOJI>"],
      ["한국", "<DOUBLE>"],
      ["カナ", "<DOUBLE>"],
    ]);
  });

  test("several texts are analyzed one after the other, their offsets going on", async () => {
    const tokens = await analyze(["所有权 abc", "def"]);
    // The distance in positions is not the same in 8.x and 9.x.
    expect(tokens.map((token: object) => ({ ...token, position: undefined }))).toEqual([
      { token: "所有", start_offset: 0, end_offset: 2, type: "<DOUBLE>" },
      { token: "有权", start_offset: 1, end_offset: 3, type: "<DOUBLE>" },
      { token: "abc", start_offset: 4, end_offset: 7, type: "<ALPHANUM>" },
      { token: "def", start_offset: 8, end_offset: 11, type: "<ALPHANUM>" },
    ]);
  });

  test("an unknown analyzer and a missing text are refused", async () => {
    const unknown = await target.send("POST", "/_analyze", { analyzer: "nonsense", text: "a" });
    expect([unknown.status, unknown.json.error.reason]).toEqual([400, "failed to find global analyzer [nonsense]"]);
    const missing = await target.send("POST", "/_analyze", { analyzer: "cjk" });
    expect([missing.status, missing.json.error.reason]).toEqual([400, "Validation Failed: 1: text is missing;"]);
  });

  test("hostile Unicode gives the tokens of our analyzer, one by one", async () => {
    await fc.assert(
      fc.asyncProperty(hostile, async (parts) => {
        const text = parts.join("").toWellFormed();
        expect(await analyze(text)).toEqual(shown(text));
      }),
      { numRuns: 300 },
    );
  }, 60_000);

  const corpus = join(import.meta.dir, "../../../shared/corpus");
  test.if(existsSync(corpus))(
    "every file of the corpus gives the tokens of our analyzer, one by one",
    async () => {
      let tokens = 0;
      for await (const file of new Glob("**/*.md").scan(corpus)) {
        const text = await Bun.file(join(corpus, file)).text();
        // A server refuses more than 10,000 tokens at once.
        for (let i = 0; i < text.length; i += 8_000) {
          const part = text.slice(i, i + 8_000).toWellFormed();
          const expected = shown(part);
          expect(await analyze(part)).toEqual(expected);
          tokens += expected.length;
        }
      }
      expect(tokens).toBeGreaterThan(300_000);
    },
    60_000,
  );
});

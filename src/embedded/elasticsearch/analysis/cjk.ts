import { type Token, tokenize } from "./tokenizer.ts";

/** Lucene's CJKAnalyzer: standard words, width folding, lower case, CJK bigrams, English stop words. */
export function analyzeCjk(text: string): Token[] {
  const tokens: Token[] = [];
  let position = -1;
  const push = (token: string, start: number, end: number, type: string) => {
    position += 1;
    if (!stopWords.has(token)) tokens.push({ token, start, end, type, position });
  };
  // The bigram filter: code points of adjoining CJK tokens wait here, each with its offsets.
  let buffer: { char: string; start: number; end: number }[] = [];
  let paired = false;
  let lastEnd = 0;
  const flush = () => {
    const [lone] = buffer;
    if (lone !== undefined && !paired) push(lone.char, lone.start, lone.end, "<SINGLE>");
    buffer = [];
    paired = false;
  };
  tokenize(text, (start, end, type) => {
    const term = normalize(text.slice(start, end));
    if (!bigramTypes.has(type)) {
      flush();
      push(term, start, end, type);
      return;
    }
    if (start !== lastEnd) flush();
    lastEnd = end;
    // A term that folding made shorter has no offset for each character: all take the token's.
    const aligned = term.length === end - start;
    let at = start;
    for (const char of term) {
      const from = aligned ? at : start;
      const to = aligned ? at + char.length : end;
      at += char.length;
      const previous = buffer.at(-1);
      if (previous !== undefined) {
        push(previous.char + char, previous.start, to, "<DOUBLE>");
        paired = true;
        buffer.length = 0;
      }
      buffer.push({ char, start: from, end: to });
    }
  });
  flush();
  return tokens;
}

/** Lucene's StandardAnalyzer: standard words in lower case, nothing left out. */
function analyzeStandard(text: string): Token[] {
  const tokens: Token[] = [];
  tokenize(text, (start, end, type) => {
    tokens.push({ token: toLowerCase(text.slice(start, end)), start, end, type, position: tokens.length });
  });
  return tokens;
}

export const analyzers: ReadonlyMap<string, (text: string) => Token[]> = new Map([
  ["cjk", analyzeCjk],
  ["standard", analyzeStandard],
  ["default", analyzeStandard],
]);

const bigramTypes = new Set(["<IDEOGRAPHIC>", "<HIRAGANA>", "<KATAKANA>", "<HANGUL>"]);

/** CJKAnalyzer's own list: it differs from the English analyzer's. */
const stopWords = new Set(
  "a and are as at be but by for if in into is it no not of on or s such t that the their then there these they this to was will with www".split(
    " ",
  ),
);

function normalize(term: string): string {
  for (let i = 0; i < term.length; i++) if (term.charCodeAt(i) > 0x7f) return toLowerCase(foldWidth(term));
  return term.toLowerCase();
}

/** Java's Character.toLowerCase by code point: no word-final sigma, İ becomes i, and no letter newer than Unicode 16. */
function toLowerCase(term: string): string {
  // Where the context-aware mapping finds nothing to do, neither does the plain one; so it is with nearly all of CJK.
  if (term.toLowerCase() === term) return term;
  let lower = "";
  for (const char of term) {
    if (char === "İ") lower += "i";
    else if (/[\ua7ce\ua7d2\ua7d4\u{16ea0}-\u{16eb8}]/u.test(char)) lower += char;
    else lower += char.toLowerCase();
  }
  return lower;
}

const kana =
  "・ヲァィゥェォャュョッーアイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワン\u3099\u309a";
const voicedBy1 = new Set("カキクケコサシスセソタチツテトハヒフヘホヽ");
const voicedBy8 = new Set("ワヰヱヲ");
const halfVoiced = new Set("ハヒフヘホ");

/** Lucene's CJKWidthFilter: full-width ASCII becomes ASCII, half-width kana kana, with its voice mark joined to it. */
function foldWidth(term: string): string {
  if (!/[\uff01-\uff9f]/.test(term)) return term;
  const folded: string[] = [];
  for (let i = 0; i < term.length; i++) {
    const code = term.charCodeAt(i);
    if (code >= 0xff01 && code <= 0xff5e) {
      folded.push(String.fromCharCode(code - 0xfee0));
    } else if (code >= 0xff65 && code <= 0xff9f) {
      const joined = code >= 0xff9e ? joinVoice(folded.at(-1), code === 0xff9f) : undefined;
      if (joined === undefined) folded.push(kana.charAt(code - 0xff65));
      else folded[folded.length - 1] = joined;
    } else {
      folded.push(term.charAt(i));
    }
  }
  return folded.join("");
}

function joinVoice(kana: string | undefined, half: boolean): string | undefined {
  if (kana === undefined) return undefined;
  const code = kana.charCodeAt(0);
  if (half) return halfVoiced.has(kana) ? String.fromCharCode(code + 2) : undefined;
  if (kana === "ウ") return "ヴ";
  if (voicedBy1.has(kana)) return String.fromCharCode(code + 1);
  return voicedBy8.has(kana) ? String.fromCharCode(code + 8) : undefined;
}

import { following, preceding, sentenceBreaks, wordBreaks } from "./analysis/breaks.ts";

export interface Match {
  readonly token: string;
  readonly start: number;
  readonly end: number;
}

export interface Passage {
  readonly text: string;
  readonly start: number;
  readonly end: number;
  readonly at: number;
  readonly matches: Match[];
}

/**
 * The passages of one value that hold matches, each of some `size` characters; null for the whole value in one. `offset` is
 * where the value begins among all values of the field.
 */
export function passagesOf(text: string, matches: readonly Match[], offset: number, size: number | null): Passage[] {
  const passages: Passage[] = [];
  const window = size === null ? () => ({ start: 0, end: text.length }) : boundedSentences(text, size);
  let current: Passage | undefined;
  for (const match of matches) {
    if (current === undefined || match.start >= current.end) {
      const { start, end } = window(match.start);
      current = { text, start, end: Math.min(end, text.length), at: offset + start, matches: [] };
      passages.push(current);
    }
    current.matches.push(match);
  }
  return passages;
}

/**
 * The passage around an offset, offsets rising: whole sentences up to `size`, and a longer sentence cut at words.
 * The steps are those of Elasticsearch's BoundedBreakIteratorScanner.
 */
function boundedSentences(text: string, size: number): (offset: number) => { start: number; end: number } {
  const sentences = sentenceBreaks(text);
  if (size === 0) {
    return (offset) => ({ start: Math.max(0, preceding(sentences, offset + 1)), end: following(sentences, offset) });
  }
  let words: number[] | undefined;
  let windowStart = -1;
  let windowEnd = -1;
  let start = -1;
  let end = 0;
  return (matchStart) => {
    const offset = matchStart + 1;
    if (offset > windowStart && offset < windowEnd) {
      start = end;
      end = windowEnd;
    } else {
      start = Math.max(preceding(sentences, offset), 0);
      const target = offset + Math.max(0, size - (offset - start));
      end = target + 1 > text.length ? text.length : preceding(sentences, target + 1);
      if (start === end) end = target >= text.length ? text.length : following(sentences, target);
      windowStart = start;
      windowEnd = end;
    }
    if (end - start > size) {
      words ??= wordBreaks(text);
      if (offset - size > start) start = Math.max(start, preceding(words, offset - size));
      const remaining = Math.max(0, size - (offset - start));
      if (offset + remaining < windowEnd) end = Math.min(windowEnd, following(words, offset + remaining));
    }
    return { start, end };
  };
}

const pivot = 87;

/** Lucene's PassageScorer: BM25 with the passage as document, and a small advantage for what stands early. */
export function scoreOf(
  { start, end, at, matches }: Passage,
  length: number,
  frequencies: ReadonlyMap<string, number>,
): number {
  const inside = new Map<string, number>();
  for (const { token } of matches) inside.set(token, (inside.get(token) ?? 0) + 1);
  const norm = 1.2 * (0.25 + 0.75 * ((end - start) / pivot));
  let score = 0;
  for (const [token, count] of inside) {
    const weight = 2.2 * Math.log(1 + (1 + length / pivot + 0.5) / ((frequencies.get(token) ?? 0) + 0.5));
    score += weight * (count / (count + norm));
  }
  return score * (1 + 1 / Math.log(pivot + at));
}

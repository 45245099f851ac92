/**
 * Offsets at which a sentence may begin or end, 0 and the text's length included. A line's end is only a space, as it is
 * for java.text; Unicode's own rules would begin a new sentence there.
 */
export function sentenceBreaks(text: string): number[] {
  return breaksOf(sentences, text.replace(/[\n\r\u0085\u2028]/g, " "));
}

/**
 * Offsets at which a word may begin or end, 0 and the text's length included. Ideographs in a row are one word, and so are
 * kana of one kind: java.text, by which Elasticsearch cuts snippets, has no dictionary for them.
 */
export function wordBreaks(text: string): number[] {
  return breaksOf(words, text).filter((at) => !inScriptRun.test(text.slice(Math.max(0, at - 1), at + 1)));
}

const inScriptRun = /^(?:\p{Script=Han}{2}|\p{Script=Hiragana}{2}|\p{Script=Katakana}{2})$/u;

const sentences = new Intl.Segmenter("en", { granularity: "sentence" });
const words = new Intl.Segmenter("en", { granularity: "word" });

function breaksOf(segmenter: Intl.Segmenter, text: string): number[] {
  const breaks = Array.from(segmenter.segment(text), ({ index }) => index);
  breaks.push(text.length);
  return breaks;
}

/** The last break before an offset; -1 when there is none. */
export function preceding(breaks: readonly number[], offset: number): number {
  let low = 0;
  let high = breaks.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((breaks[middle] ?? 0) < offset) low = middle + 1;
    else high = middle;
  }
  return breaks[low - 1] ?? -1;
}

/** The first break after an offset; -1 when there is none. */
export function following(breaks: readonly number[], offset: number): number {
  let low = 0;
  let high = breaks.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((breaks[middle] ?? 0) <= offset) low = middle + 1;
    else high = middle;
  }
  return breaks[low] ?? -1;
}

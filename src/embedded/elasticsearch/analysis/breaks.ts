/** Offsets at which a sentence may begin or end, 0 and the text's length included. */
export function sentenceBreaks(text: string): number[] {
  return breaksOf(sentences, text);
}

/** Offsets at which a word may begin or end, 0 and the text's length included. */
export function wordBreaks(text: string): number[] {
  return breaksOf(words, text);
}

const sentences = new Intl.Segmenter("en", { granularity: "sentence" });
const words = new Intl.Segmenter("en", { granularity: "word" });

function breaksOf(segmenter: Intl.Segmenter, text: string): number[] {
  const breaks = Array.from(segmenter.segment(text), ({ index }) => index);
  breaks.push(text.length);
  return breaks;
}

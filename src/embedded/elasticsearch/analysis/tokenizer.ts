import { actions, classLetters, classRuns, finals, transitions, types } from "./tables.ts";

/** A token of the text: offsets are UTF-16 code units, `position` counts tokens, holes left by stop words included. */
export interface Token {
  readonly token: string;
  readonly start: number;
  readonly end: number;
  readonly type: string;
  readonly position: number;
}

const classCount = classLetters.length;
/** The longest token, and therefore the look-ahead: a longer run is cut here, as StandardTokenizer does. */
const bufferSize = 255;

/** Class of every code point: the first plane is looked up directly, the rest by binary search in the runs. */
const { bmp, starts, classes } = decodeClasses();
const next = decodeTransitions();
const action = Uint8Array.from(actions, (digit) => Number.parseInt(digit, 36));
const final = Uint8Array.from(finals, Number);

/**
 * Splits `text` as Lucene's StandardTokenizer does, calling `emit` for each token in order.
 * Its reading in pieces of 255 units is kept, since it shows: a long run is cut there, and a text that ends in half a
 * surrogate pair loses what was not yet scanned when the end was met.
 */
export function tokenize(text: string, emit: (start: number, end: number, type: string) => void): void {
  let readEnd = 0; // text beyond this has not been read into the buffer
  let bufferStart = 0;
  let held = 0; // 1 while a high surrogate waits at the end of the buffer for its other half
  let start = 0;
  for (;;) {
    let position = start;
    let marked = start;
    let state = 0;
    let accepted = -1;
    let ended = false;
    for (;;) {
      if (position >= readEnd) {
        if (start > bufferStart) {
          readEnd += held;
          held = 0;
          bufferStart = start;
        }
        const requested = bufferSize - (readEnd - bufferStart) - held;
        const read = Math.min(requested, text.length - readEnd - held);
        ended = read <= 0;
        if (!ended) {
          readEnd += read;
          const last = text.charCodeAt(readEnd - 1);
          if (last >= 0xd800 && last < 0xdc00) {
            if (read === requested) {
              readEnd -= 1;
              held = 1;
              ended = read === 1;
            } else {
              ended = true;
            }
          }
        }
        if (ended) break;
      }
      const code = codePointAt(text, position, readEnd);
      position += code > 0xffff ? 2 : 1;
      const to = next[state * classCount + classOf(code)] ?? -1;
      if (to < 0) break;
      state = to;
      const does = action[state] ?? 0;
      if (does > 0) {
        accepted = does;
        marked = position;
        if (final[state] === 1) break;
      }
    }
    if (ended && start === position) return;
    if (accepted < 0) return;
    if (accepted > 1) emit(start, marked, types[accepted] ?? "");
    start = marked;
  }
}

function codePointAt(text: string, at: number, end: number): number {
  const high = text.charCodeAt(at);
  if (high < 0xd800 || high > 0xdbff || at + 1 >= end) return high;
  const low = text.charCodeAt(at + 1);
  if (low < 0xdc00 || low > 0xdfff) return high;
  return ((high - 0xd800) << 10) + (low - 0xdc00) + 0x10000;
}

function classOf(code: number): number {
  if (code <= 0xffff) return bmp[code] ?? 0;
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((starts[middle] ?? 0) <= code) low = middle;
    else high = middle - 1;
  }
  return classes[low] ?? 0;
}

function decodeClasses() {
  const starts: number[] = [];
  const classes: number[] = [];
  let at = 0;
  for (const [, distance = "", letter = ""] of classRuns.matchAll(/([0-9a-z]+)([A-Z!#$])/g)) {
    at += Number.parseInt(distance, 36);
    starts.push(at);
    classes.push(classLetters.indexOf(letter));
  }
  const bmp = new Uint8Array(0x10000);
  for (const [i, from] of starts.entries()) {
    if (from <= 0xffff) bmp.fill(classes[i] ?? 0, from, starts[i + 1] ?? 0x10000);
  }
  return { bmp, starts, classes };
}

function decodeTransitions(): Int8Array {
  const cells = transitions.match(/../g) ?? [];
  return Int8Array.from(cells, (cell) => (cell === ".." ? -1 : Number.parseInt(cell, 36)));
}

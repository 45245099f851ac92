import { following, wordBreaks } from "./analysis/breaks.ts";
import { analyzers } from "./analysis/cjk.ts";
import { parsingException, Refusal, unsupported } from "./errors.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import { type Mapping, show } from "./mapping.ts";
import { type Match, type Passage, passagesOf, scoreOf } from "./passage.ts";
import type { Wanted } from "./query/compilation.ts";

export interface Highlight {
  readonly fields: readonly (readonly [string, Options])[];
}

interface Options {
  readonly preTag: string;
  readonly postTag: string;
  readonly fragmentSize: number;
  readonly fragments: number;
  readonly noMatchSize: number;
  readonly byScore: boolean;
  readonly html: boolean;
  /** Characters at the start of a value that are looked at. */
  readonly analyzed: number;
}

const defaults: Options = {
  preTag: "<em>",
  postTag: "</em>",
  fragmentSize: 100,
  fragments: 5,
  noMatchSize: 0,
  byScore: false,
  html: false,
  analyzed: 1_000_000,
};

/** Reads the `highlight` part of a search. Only the unified highlighter is here. */
export function parseHighlight(body: Json): Highlight {
  if (!isObject(body)) throw parsingException("Unknown key for a VALUE in [highlight].");
  const { fields, ...rest } = body;
  const common = parseOptions(rest, defaults, "highlight");
  const entries = Array.isArray(fields)
    ? fields.flatMap((item) => Object.entries(isObject(item) ? item : {}))
    : Object.entries(isObject(fields) ? fields : {});
  return {
    fields: entries.map(([name, options]) => {
      if (name.includes("*")) throw unsupported("a highlight of fields by pattern");
      return [name, parseOptions(isObject(options) ? options : {}, common, "highlight_field")];
    }),
  };
}

function parseOptions(body: JsonObject, base: Options, where: string): Options {
  const options: { -readonly [Name in keyof Options]: Options[Name] } = { ...base };
  for (const [key, value] of Object.entries(body)) {
    if (key === "pre_tags") options.preTag = firstTag(value);
    else if (key === "post_tags") options.postTag = firstTag(value);
    else if (key === "fragment_size") options.fragmentSize = Number(value);
    else if (key === "number_of_fragments") options.fragments = Number(value);
    else if (key === "max_analyzed_offset" && Number(value) > 0) options.analyzed = Number(value);
    else if (key === "no_match_size") options.noMatchSize = Number(value);
    else if (key === "order" && (value === "score" || value === "none")) options.byScore = value === "score";
    else if (key === "encoder" && where === "highlight" && (value === "html" || value === "default")) {
      options.html = value === "html";
    } else if (key === "type" && value === "unified") continue;
    else if (key === "require_field_match" && value === true) continue;
    else if (foreignOptions.has(key)) throw unsupported(`the highlight option [${key}]`);
    else throw new Refusal(400, "x_content_parse_exception", `[1:1] [${where}] unknown field [${key}]`);
  }
  return options;
}

const foreignOptions = new Set(
  `boundary_chars boundary_max_scan boundary_scanner boundary_scanner_locale encoder force_source
  fragmenter fragment_offset highlight_query matched_fields max_analyzed_offset order phrase_limit
  require_field_match tags_schema type`.split(/\s+/),
);

function firstTag(value: Json): string {
  if (Array.isArray(value) && value.length > 1) throw unsupported("more than one highlight tag");
  return show(Array.isArray(value) ? (value[0] ?? "") : value);
}

/** The snippets of one document by field, or undefined when there is none. */
export function highlight(
  request: Highlight,
  mapping: Mapping,
  wanted: readonly Wanted[],
  document: JsonObject,
): JsonObject | undefined {
  const found: JsonObject = {};
  for (const [name, options] of request.fields) {
    const field = mapping.fields.get(name);
    const value = document[name];
    if (field === undefined || field.type !== "text" || value === undefined || value === null) continue;
    const values = (Array.isArray(value) ? value : [value]).map(String);
    const tokens = values.map((text) => analyzers.get(field.analyzer)?.(text.slice(0, options.analyzed)) ?? []);
    const words = foundWords(wanted, name, tokens);
    const matches = tokens.map((list) => list.filter(({ token }) => words.has(token)));
    const snippets = snippetsOf(values, matches, options);
    if (snippets.length > 0) found[name] = snippets;
  }
  return Object.keys(found).length > 0 ? found : undefined;
}

/** The words to mark: those of every clause that found this field, not of one that found the document elsewhere. */
function foundWords(wanted: readonly Wanted[], field: string, tokens: readonly Match[][]): Set<string> {
  const present = new Set(tokens.flatMap((list) => list.map(({ token }) => token)));
  const found = new Set<string>();
  for (const clause of wanted) {
    if (clause.field !== field) continue;
    const here = [...clause.words].filter((word) => present.has(word));
    if (here.length >= clause.needed) for (const word of here) found.add(word);
  }
  return found;
}

/** Lucene's UnifiedHighlighter with Elasticsearch's bounded sentences: passages around the words found, the best of them. */
function snippetsOf(values: readonly string[], matchesOf: readonly Match[][], options: Options): string[] {
  const passages: Passage[] = [];
  const frequencies = new Map<string, number>();
  const size = options.fragments === 0 ? null : options.fragmentSize;
  let offset = 0;
  for (const [i, text] of values.entries()) {
    const matches = matchesOf[i] ?? [];
    for (const { token } of matches) frequencies.set(token, (frequencies.get(token) ?? 0) + 1);
    passages.push(...passagesOf(text, matches, offset, size));
    offset += text.length + 1;
  }
  if (passages.length === 0) return lead(values, options);
  const scored = passages.map((passage) => ({ passage, score: scoreOf(passage, offset - 1, frequencies) }));
  scored.sort((a, b) => b.score - a.score || b.passage.at - a.passage.at);
  const best = scored.slice(0, options.fragments === 0 ? scored.length : options.fragments);
  best.sort((a, b) => (options.byScore ? b.score - a.score : 0) || a.passage.at - b.passage.at);
  return best.map(({ passage }) => mark(passage, options));
}

/** With no word found: the beginning of the field, up to the word that passes `no_match_size`. */
function lead(values: readonly string[], { noMatchSize, html }: Options): string[] {
  const text = values.find((value) => value !== "");
  if (noMatchSize <= 0 || text === undefined) return [];
  const end = noMatchSize < text.length ? following(wordBreaks(text), noMatchSize) : text.length;
  return [trim(encode(text.slice(0, end < 0 ? text.length : end), html))];
}

/** The passage's text with every run of overlapping matches in tags. */
function mark({ text, start, end, matches }: Passage, { preTag, postTag, html }: Options): string {
  let marked = "";
  let position = start;
  for (let i = 0; i < matches.length; i++) {
    const match = matches[i];
    if (match === undefined) break;
    let until = match.end;
    for (let next = matches[i + 1]; next !== undefined && next.start < until; next = matches[i + 1]) {
      until = Math.max(until, next.end);
      i += 1;
    }
    until = Math.min(until, end);
    marked += encode(text.slice(position, match.start), html);
    marked += preTag + encode(text.slice(match.start, until), html) + postTag;
    position = until;
  }
  return trim(marked + encode(text.slice(position, Math.max(position, end)), html));
}

const entities: Record<string, string> = {
  '"': "&quot;",
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  "'": "&#x27;",
  "/": "&#x2F;",
};

function encode(text: string, html: boolean): string {
  return html ? text.replace(/["&<>'/]/g, (char) => entities[char] ?? char) : text;
}

/** Java's trim: everything up to the space goes, no other kind of space does. */
function trim(text: string): string {
  return text.replace(/^[^!-\u{10ffff}]+|[^!-\u{10ffff}]+$/gu, "");
}

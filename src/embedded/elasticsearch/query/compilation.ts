import type { SQLQueryBindings } from "bun:sqlite";
import type { Snapshot } from "../snapshot.ts";

/**
 * The query language, turned into one SQL select over the rows of `docs` (as `d`).
 * Every clause becomes two expressions: whether a row matches, and its score where it does. Words are looked up in the
 * postings of FTS5, each text query in a common table expression that is joined to the row; its score is Lucene's BM25.
 */
export interface Compiled {
  readonly match: string;
  readonly score: string;
  /** The table of this clause alone, where it is nothing else than its table. */
  readonly table?: string;
}

export interface Compilation {
  readonly snapshot: Snapshot;
  readonly tables: string[];
  /** Those of the tables that rows are joined to. */
  readonly joined: Set<string>;
  readonly parameters: SQLQueryBindings[];
  /** What was looked for in text, for the highlighter. */
  readonly wanted: Wanted[];
}

/** Words of one clause: a document whose field holds fewer than `needed` of them was not found by it. */
export interface Wanted {
  readonly field: string;
  readonly words: ReadonlySet<string>;
  readonly needed: number;
}

export function startCompilation(snapshot: Snapshot): Compilation {
  return { snapshot, tables: [], joined: new Set(), parameters: [], wanted: [] };
}

/** A value as a numbered parameter of the statement. */
export function bind(to: Compilation, value: SQLQueryBindings): string {
  to.parameters.push(value);
  return `?${to.parameters.length}`;
}

/** The clause that no row matches. */
export const nothing: Compiled = { match: "0", score: "0.0" };

/** A clause whose rows all score the same. */
export function constant(match: string, boost: number): Compiled {
  return { match, score: real(boost) };
}

/** Adds a select of rows and their scores as a common table, and joins rows to it. */
export function join(to: Compilation, select: string): Compiled {
  const table = `m${to.tables.length}`;
  to.tables.push(`${table}(doc, score) as materialized (${select})`);
  to.joined.add(table);
  return { match: `${table}.doc is not null`, score: `coalesce(${table}.score, 0.0)`, table };
}

/** A number as SQL that is not an integer there. */
export function real(number: number): string {
  const text = String(number);
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}

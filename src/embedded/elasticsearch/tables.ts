import type { Database } from "bun:sqlite";
import type { Field, Mapping } from "./mapping.ts";
import type { Index } from "./store.ts";

/** Makes room for a field: its column, or for words an FTS5 table and the two views into its postings. */
export function addField(db: Database, index: Index, field: Field): void {
  if (!field.indexed && field.type === "text") return;
  if (field.type !== "text") {
    db.run(`alter table docs_${index.number} add column ${valueColumn(field)}`);
    return;
  }
  db.run(`alter table docs_${index.number} add column ${wordsColumn(field)} integer`);
  db.run(`alter table docs_${index.number} add column ${lengthColumn(field)} integer`);
  const table = textTable(index, field);
  // The analyzer has made the words; FTS5 has only to part them at spaces, so every other ASCII sign belongs to a word.
  db.run(`create virtual table ${table} using fts5(
    words, content = '', contentless_delete = 1, tokenize = "ascii tokenchars '!""#$%&''()*+,-./:;<=>?@[\\]^_\`{|}~'")`);
  db.run(`create virtual table ${termsTable(index, field)} using fts5vocab(${table}, instance)`);
  db.run(`create virtual table ${countsTable(index, field)} using fts5vocab(${table}, row)`);
}

export const valueColumn = (field: Field) => `v${field.ordinal}`;
/** How many words the field has in this document. */
export const wordsColumn = (field: Field) => `w${field.ordinal}`;
/** The same as Lucene keeps it for scoring: one byte, so rounded down above 40 words. */
export const lengthColumn = (field: Field) => `l${field.ordinal}`;
export const textTable = (index: Index, field: Field) => `text_${index.number}_${field.ordinal}`;
export const termsTable = (index: Index, field: Field) => `terms_${index.number}_${field.ordinal}`;
export const countsTable = (index: Index, field: Field) => `counts_${index.number}_${field.ordinal}`;

export function textFields(mapping: Mapping): Field[] {
  return [...mapping.fields.values()].filter((field) => field.type === "text" && field.indexed);
}

export function valueFields(mapping: Mapping): Field[] {
  return [...mapping.fields.values()].filter((field) => field.type !== "text");
}

/** What an index keeps in memory of its text fields, recounted. */
export function countWords(db: Database, index: Index): Index["words"] {
  const counted: Index["words"] = new Map();
  for (const field of textFields(index.mapping)) {
    const words = wordsColumn(field);
    const row = db
      .query<{ documents: bigint; words: bigint }, []>(
        `select count(*) as documents, coalesce(sum(${words}), 0) as words from docs_${index.number} where ${words} > 0`,
      )
      .get();
    counted.set(field.name, { documents: Number(row?.documents ?? 0), words: Number(row?.words ?? 0) });
  }
  return counted;
}

import type { SQLQueryBindings } from "bun:sqlite";
import type { Field } from "../mapping.ts";
import { countsTable, lengthColumn, termsTable, valueColumn } from "../tables.ts";
import { bind, type Compilation, type Compiled, join, nothing, real } from "./compilation.ts";

const k1 = 1.2;
const b = 0.75;

/** Rows of which at least `needed` of the words are in the field, scored as Lucene's BM25 does. A word given twice counts twice. */
export function words(
  to: Compilation,
  field: Field,
  wanted: readonly string[],
  needed: number,
  boost: number,
): Compiled {
  const { index, db, words: counted } = to.snapshot;
  to.wanted.push({
    field: field.name,
    words: new Set(wanted),
    needed: new Set(wanted).size === wanted.length ? needed : 1,
  });
  const { documents, words: total } = counted.get(field.name) ?? { documents: 0, words: 0 };
  const frequency = db.query<{ doc: bigint }, [string]>(`select doc from ${countsTable(index, field)} where term = ?`);
  const norm = `${k1} * (${1 - b} + ${b} * d.${lengthColumn(field)} / ${real(total / Math.max(1, documents))})`;
  const selects: string[] = [];
  for (const [i, word] of wanted.entries()) {
    const found = Number(frequency.get(word)?.doc ?? 0);
    if (found === 0) continue;
    const weight = boost * (k1 + 1) * idf(documents, found);
    selects.push(`select ${i}, p.doc as doc, ${real(weight)} * p.tf / (p.tf + ${norm}) as weight from (
      select doc, count(*) as tf from ${termsTable(index, field)} where term = ${bind(to, word)} group by doc) p
      join docs_${index.number} d on d.seq = p.doc`);
  }
  if (selects.length < needed) return nothing;
  return join(
    to,
    `select doc, sum(weight) from (${selects.join(" union all ")}) group by doc having count(*) >= ${needed}`,
  );
}

/** A keyword scores as a text of as many words as it has values, without Lucene's norms. */
export function keywordScore(to: Compilation, field: Field, match: string, boost: number): string {
  const column = `d.${valueColumn(field)}`;
  const { index, db } = to.snapshot;
  const row = db
    .query<{ documents: bigint; total: bigint; found: bigint }, SQLQueryBindings[]>(
      `select count(${column}) as documents,
              coalesce(sum(case typeof(${column}) when 'null' then 0 when 'blob' then json_array_length(cast(${column} as text)) else 1 end), 0) as total,
              count(*) filter (where ${match.replaceAll(/\?\d+/g, "?1")}) as found
         from docs_${index.number} d`,
    )
    .get(to.parameters.at(-1) ?? null);
  const documents = Number(row?.documents ?? 0);
  const average = Number(row?.total ?? 0) / Math.max(1, documents);
  const tf = 1 / (1 + k1 * (1 - b + b / Math.max(1, average)));
  return real(boost * (k1 + 1) * idf(documents, Number(row?.found ?? 0)) * tf);
}

function idf(documents: number, found: number): number {
  return Math.log(1 + (documents - found + 0.5) / (found + 0.5));
}

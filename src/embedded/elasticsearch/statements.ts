import type { Database, SQLQueryBindings, Statement } from "bun:sqlite";
import type { Index } from "./store.ts";
import { lengthColumn, textFields, textTable, valueColumn, valueFields, wordsColumn } from "./tables.ts";

export interface Statements {
  readonly find: Statement<Record<string, bigint | null>, SQLQueryBindings[]>;
  readonly findTombstone: Statement<{ version: bigint; deleted_at: bigint }, SQLQueryBindings[]>;
  readonly insert: Statement;
  readonly insertSource: Statement;
  readonly remove: Statement;
  readonly removeSource: Statement;
  readonly bury: Statement;
  readonly exhume: Statement;
  readonly source: Statement<{ version: bigint; seq: bigint; source: string }, SQLQueryBindings[]>;
  readonly insertText: ReadonlyMap<string, Statement>;
  readonly removeText: ReadonlyMap<string, Statement>;
}

/** The index's prepared statements; recreated after its mapping has changed. */
export function statementsOf(db: Database, index: Index): Statements {
  index.statements ??= prepare(db, index);
  return index.statements;
}

export function forgetStatements(index: Index): void {
  const { statements } = index;
  if (statements === undefined) return;
  const { insertText, removeText, ...single } = statements;
  for (const statement of [...Object.values(single), ...insertText.values(), ...removeText.values()])
    statement.finalize();
  index.statements = undefined;
}

function prepare(db: Database, index: Index): Statements {
  const { number, mapping } = index;
  const texts = textFields(mapping);
  const columns = [
    ...valueFields(mapping).map(valueColumn),
    ...texts.flatMap((field) => [wordsColumn(field), lengthColumn(field)]),
  ];
  const marks = ["?", "?", "?", ...columns.map(() => "?")].join(", ");
  const wordColumns = texts.map((field) => `, ${wordsColumn(field)}`).join("");
  return {
    find: db.prepare(`select seq, version${wordColumns} from docs_${number} where id = ?`),
    findTombstone: db.prepare(`select version, deleted_at from tombstones_${number} where id = ?`),
    insert: db.prepare(
      `insert into docs_${number} (${["seq", "id", "version", ...columns].join(", ")}) values (${marks})`,
    ),
    insertSource: db.prepare(`insert into sources_${number} (seq, source) values (?, ?)`),
    remove: db.prepare(`delete from docs_${number} where seq = ?`),
    removeSource: db.prepare(`delete from sources_${number} where seq = ?`),
    bury: db.prepare(`insert or replace into tombstones_${number} (id, version, deleted_at) values (?, ?, ?)`),
    exhume: db.prepare(`delete from tombstones_${number} where id = ?`),
    source: db.prepare(
      `select d.version, d.seq, s.source from docs_${number} d join sources_${number} s on s.seq = d.seq where d.id = ?`,
    ),
    insertText: new Map(
      texts.map((f) => [f.name, db.prepare(`insert into ${textTable(index, f)} (rowid, words) values (?, ?)`)]),
    ),
    removeText: new Map(texts.map((f) => [f.name, db.prepare(`delete from ${textTable(index, f)} where rowid = ?`)])),
  };
}

import { posix } from "node:path";
import { and, eq, isNull, sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { isContention } from "../db/failure.ts";
import { bookshelves, libraries } from "../db/schema.ts";
import { CommandError, WordloomError } from "../errors.ts";
import type { Appended } from "../events.ts";
import { createBookshelf } from "./bookshelves.ts";
import { type Cause, type Unit, write } from "./change.ts";
import type { MarkdownSource, Unreadable } from "./folder.ts";
import { deleteImportedBook, saveBook } from "./imported-book.ts";
import { createLibrary } from "./libraries.ts";
import { type MarkdownDocument, readMarkdown } from "./markdown.ts";

/** What an import did. The names are those of `--json`. */
export type ImportReport = {
  files: number;
  books_created: number;
  books_changed: number;
  books_deleted: number;
  blocks_created: number;
  blocks_changed: number;
  blocks_deleted: number;
  unchanged: number;
  failed: Unreadable[];
  /** True when it was stopped before the end; running the same import again continues it. */
  interrupted: boolean;
  seconds: number;
};

export type ImportOptions = {
  /** The library's name, at most 255 code points; it is created when missing. */
  readonly library: string;
  readonly userId: string;
  /** Hears of every commit. */
  readonly committed: (appended: Appended) => void;
  /** Ends the import after the file in hand. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
};

/** Waiting for another import's file, or for another writer in the same book, may take longer than one statement is allowed. */
const mostAttempts = 10;

/** A name as the API would take it: one line, at most 255 characters. */
const asName = (text: string) =>
  Array.from(text.replaceAll(/\p{Cc}+/gu, " "))
    .slice(0, 255)
    .join("");

/**
 * Two imports of one library take turns, file by file, and each sees what the other wrote. The lock ends with its transaction, so it also holds behind
 * a pooler.
 */
const lock = ({ tx }: Unit, userId: string, library: string) =>
  tx.execute(sql`select pg_advisory_xact_lock(hashtextextended(${`wordloom import ${userId} ${library}`}, 0))`);

async function findOrCreateLibrary(unit: Unit, name: string): Promise<string> {
  const [found] = await unit.tx
    .select({ id: libraries.id })
    .from(libraries)
    .where(and(eq(libraries.userId, unit.cause.actorId), eq(libraries.name, name), isNull(libraries.softDeletedAt)));
  return (found ?? (await createLibrary(unit, { name }))).id;
}

/** The shelf of this name, held in place until the transaction ends: what is deleted meanwhile must not gain books. */
async function findOrCreateShelf(unit: Unit, libraryId: string, name: string): Promise<string> {
  const [found] = await unit.tx
    .select({ id: bookshelves.id })
    .from(bookshelves)
    .where(and(eq(bookshelves.libraryId, libraryId), eq(bookshelves.name, name), isNull(bookshelves.softDeletedAt)))
    .for("share");
  return (found ?? (await createBookshelf(unit, { libraryId, name }))).id;
}

/** The imported books of a library whose files are not in the source. */
async function vanished(
  db: Db,
  libraryId: string,
  source: MarkdownSource,
): Promise<{ paths: string[]; known: number }> {
  const rows = await db.execute<{ path: string }>(
    sql`select source_path as path from books where library_id = ${libraryId}::uuid and source_path is not null and soft_deleted_at is null`,
  );
  const present = new Set(source.files);
  const hidden = (path: string) => source.unreadable.some((u) => u.path === "." || path.startsWith(`${u.path}/`));
  return { paths: rows.map((r) => r.path).filter((p) => !present.has(p) && !hidden(p)), known: rows.length };
}

/** A document, or why the file has none. */
async function load(source: MarkdownSource, file: string): Promise<MarkdownDocument | Unreadable> {
  const read = await source.read(file);
  if (!("text" in read)) return read;
  try {
    return readMarkdown(read.text);
  } catch (error) {
    if (error instanceof RangeError) return { path: file, reason: "is nested too deeply to be read as Markdown" };
    throw error;
  }
}

/**
 * Makes a library say what the files say: a book per file, a block per top-level element, a bookshelf per folder. What is the same already is not
 * written at all: no version, no event. A book whose file is gone is deleted; books that no import made are left alone. Every file is one
 * transaction, so an import that is cut short leaves whole books and can be run again. Files that cannot be read are named in the report.
 * Throws a CommandError when the library was imported from entirely different files, before anything is written.
 */
export async function importMarkdown(db: Db, source: MarkdownSource, options: ImportOptions): Promise<ImportReport> {
  const started = performance.now();
  const { library, userId, committed, signal } = options;
  const cause: Cause = {
    actorId: userId,
    source: "import",
    correlationId: `import-${Bun.randomUUIDv7()}`,
    traceparent: null,
    tracestate: null,
  };
  const report: ImportReport = {
    files: source.files.length,
    books_created: 0,
    books_changed: 0,
    books_deleted: 0,
    blocks_created: 0,
    blocks_changed: 0,
    blocks_deleted: 0,
    unchanged: 0,
    failed: [...source.unreadable],
    interrupted: false,
    seconds: 0,
  };
  const locked = async <T>(work: (unit: Unit) => Promise<T>): Promise<T> => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await write(db, cause, committed, async (unit) => {
          await lock(unit, userId, library);
          return await work(unit);
        });
      } catch (error) {
        const taken = error instanceof WordloomError && error.code.endsWith("_ALREADY_EXISTS");
        if (attempt < mostAttempts && (taken || isContention(error))) continue;
        if (!(error instanceof WordloomError)) throw error;
        throw new CommandError(
          "failed",
          `"${library}" is being changed by someone else (${error.message}); run the import again`,
          {
            cause: error,
          },
        );
      }
    }
  };

  const libraryId = await locked((unit) => findOrCreateLibrary(unit, library));
  const gone = await vanished(db, libraryId, source);
  if (gone.known > 0 && gone.paths.length === gone.known)
    throw new CommandError(
      "refused",
      `the library "${library}" was imported from different files: none of its ${gone.known} files is in this folder; give another --library, or delete that one first`,
    );

  for (const [i, file] of source.files.entries()) {
    options.onProgress?.(i, source.files.length);
    report.interrupted ||= signal?.aborted === true;
    if (report.interrupted) break;
    const document = await load(source, file);
    if ("reason" in document) {
      report.failed.push(document);
      continue;
    }
    const folder = posix.dirname(file);
    const shelf = asName(folder === "." ? source.name : folder);
    const title = asName(document.title ?? posix.basename(file).replace(/\.[^.]+$/, ""));
    const done = await locked(async (unit) => {
      // Of a book that is there already the shelf is its owner's business.
      const shelfId = () => findOrCreateShelf(unit, libraryId, shelf);
      return await saveBook(unit, { libraryId, shelfId, sourcePath: file, title, blocks: document.blocks });
    });
    if (done.book === "unchanged") report.unchanged += 1;
    else report[`books_${done.book}`] += 1;
    report.blocks_created += done.created;
    report.blocks_changed += done.changed;
    report.blocks_deleted += done.deleted;
  }
  for (const path of gone.paths) {
    report.interrupted ||= signal?.aborted === true;
    if (report.interrupted) break;
    const blocks = await locked((unit) => deleteImportedBook(unit, libraryId, path));
    if (blocks === undefined) continue;
    report.books_deleted += 1;
    report.blocks_deleted += blocks;
  }
  if (!report.interrupted) options.onProgress?.(source.files.length, source.files.length);
  report.seconds = Math.round(performance.now() - started) / 1000;
  return report;
}

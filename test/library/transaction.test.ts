import { afterAll, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { createBlocks } from "../../src/library/blocks.ts";
import { changeBook, deleteBook } from "../../src/library/books.ts";
import { type Appended, type Unit, writeOnce } from "../../src/library/change.ts";
import { createLibrary, deleteLibrary } from "../../src/library/libraries.ts";
import { changeTag, createTag, createTopTag, deleteTag } from "../../src/library/tags.ts";
import { cause, contradictions, countRows, inOneWrite, rejection, shelve } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";

const { db, close } = (await testDatabase()).open();
afterAll(close);

/** Makes every write to `table` fail while `work` runs. */
async function breaking(table: string, work: () => Promise<void>): Promise<void> {
  await db.execute(
    sql`create or replace function refuse() returns trigger language plpgsql as $$ begin raise exception 'injected'; end $$`,
  );
  await db.execute(
    sql`create trigger refuse before insert or update on ${sql.identifier(table)} for each statement execute function refuse()`,
  );
  try {
    await work();
  } finally {
    await db.execute(sql`drop trigger refuse on ${sql.identifier(table)}`);
  }
}

/** A fingerprint of every row that a write could touch. */
async function snapshot(): Promise<unknown> {
  const tables = [
    "libraries",
    "bookshelves",
    "books",
    "blocks",
    "tags",
    "search_index",
    "chronicle_events",
    "search_outbox_events",
    "chronicle_outbox_events",
  ];
  return await Promise.all(
    tables.map((t) =>
      db.execute(sql`select md5(coalesce(string_agg(t::text, ',' order by t::text), '')) from ${sql.identifier(t)} t`),
    ),
  );
}

describe("a write is one transaction", () => {
  const stations = ["search_index", "chronicle_events", "search_outbox_events_live", "chronicle_outbox_events_live"];

  test.each([["tags"], ...stations.map((s) => [s])])("a tag's write that fails at %s leaves nothing", async (table) => {
    const tag = await inOneWrite(db, (unit) => createTag(unit, { name: `old ${table}` }));
    const verbs: ((unit: Unit) => Promise<unknown>)[] = [
      (unit) => createTag(unit, { name: `new ${table}` }),
      (unit) => changeTag(unit, tag.id, { name: `renamed ${table}` }),
      (unit) => deleteTag(unit, tag.id),
    ];
    for (const verb of verbs) {
      const before = await snapshot();
      await breaking(table, async () => {
        const told: unknown[] = [];
        expect(await rejection(inOneWrite(db, verb, told as never))).toBeInstanceOf(Error);
        expect(told).toEqual([]);
      });
      expect(await snapshot()).toEqual(before);
    }
  });

  test.each([["libraries"], ["bookshelves"], ["books"], ["blocks"], ...stations.map((s) => [s])])(
    "a cascading delete that fails at %s leaves nothing deleted",
    async (table) => {
      const { library } = await shelve(db, `cascade ${table}`, 3);
      const before = await snapshot();
      await breaking(table, async () => {
        expect(await rejection(inOneWrite(db, (unit) => deleteLibrary(unit, library.id)))).toBeInstanceOf(Error);
      });
      expect(await snapshot()).toEqual(before);
    },
  );

  test("a connection that is cut between the statements leaves nothing", async () => {
    const before = await countRows(db);
    const cut = inOneWrite(db, async (unit) => {
      await createLibrary(unit, { name: "cut" });
      await unit.tx.execute(sql`select pg_terminate_backend(pg_backend_pid())`);
    });
    expect(await rejection(cut)).toBeInstanceOf(Error);
    expect(await countRows(db)).toEqual(before);
  });

  test("nothing is announced before the commit, and exactly what was appended after it", async () => {
    const { book } = await shelve(db, "announced", 2);
    const told: Parameters<typeof inOneWrite>[2] = [];
    await inOneWrite(
      db,
      async (unit) => {
        await changeBook(unit, book.id, { title: "Other" });
        await createBlocks(unit, book.id, [{ type: "text", content: "third" }]);
        await deleteBook(unit, book.id);
        expect(told).toEqual([]);
      },
      told,
    );
    expect(told?.map((m) => [...m.values()])).toEqual([
      [
        { eventType: "book_renamed", entityType: "book", count: 1, chronicled: 1 },
        { eventType: "block_created", entityType: "block", count: 1, chronicled: 1 },
        { eventType: "book_deleted", entityType: "book", count: 1, chronicled: 1 },
        { eventType: "block_soft_deleted", entityType: "block", count: 3, chronicled: 3 },
      ],
    ]);
  });

  test("a write of one statement refuses to become two", async () => {
    const told: Appended[] = [];
    const twice = writeOnce(
      db,
      cause,
      (appended) => told.push(appended),
      async (statement) => {
        await createTopTag(statement, { name: "first of two" });
        await createTopTag(statement, { name: "second of two" });
      },
    );
    expect(await rejection(twice)).toBeInstanceOf(Error);
    expect(told).toEqual([]);
  });

  test.each([["tags"], ...stations.map((s) => [s])])(
    "a write of one statement that fails at %s leaves nothing",
    async (table) => {
      const before = await snapshot();
      await breaking(table, async () => {
        const once = writeOnce(
          db,
          cause,
          () => expect.unreachable(),
          (statement) => createTopTag(statement, { name: `once ${table}` }),
        );
        expect(await rejection(once)).toBeInstanceOf(Error);
      });
      expect(await snapshot()).toEqual(before);
    },
  );
});

test("rows, index, events and chronicle say the same after all of this", async () => {
  expect(await contradictions(db)).toEqual([]);
});

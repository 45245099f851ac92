import { afterAll, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import type { Appended } from "../../src/events.ts";
import { createBlocks } from "../../src/library/blocks.ts";
import { changeBook, deleteBook } from "../../src/library/books.ts";
import { createLibrary, deleteLibrary } from "../../src/library/libraries.ts";
import { changeTag, createTags, deleteTag } from "../../src/library/tags.ts";
import { cause, contradictions, countRows, createTag, inOneWrite, rejection, shelve } from "../support/library.ts";
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
    const tag = await createTag(db, { name: `old ${table}` });
    const verbs: ((told: Appended[]) => Promise<unknown>)[] = [
      (told) => createTag(db, { name: `new ${table}` }, told),
      (told) => inOneWrite(db, (unit) => changeTag(unit, tag.id, { name: `renamed ${table}` }), told),
      (told) => inOneWrite(db, (unit) => deleteTag(unit, tag.id), told),
    ];
    for (const verb of verbs) {
      const before = await snapshot();
      await breaking(table, async () => {
        const told: Appended[] = [];
        expect(await rejection(verb(told))).toBeInstanceOf(Error);
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
    expect(told.map((m) => [...m])).toEqual([
      [
        ["book_renamed", { count: 1, chronicled: 1 }],
        ["block_created", { count: 1, chronicled: 1 }],
        ["book_deleted", { count: 1, chronicled: 1 }],
        ["block_soft_deleted", { count: 3, chronicled: 3 }],
      ],
    ]);
  });

  test("of tags that are created together each is written for its own cause or refused, and only what was written is announced", async () => {
    await createTag(db, { name: "there already" });
    const names = ["together 1", "there already", "together 2", "together 1"];
    const asked = names.map((name, i) => ({
      fields: { name },
      cause: {
        ...cause,
        actorId: i < 3 ? cause.actorId : crypto.randomUUID(),
        correlationId: `caller ${i}`,
        traceparent: `trace ${i}`,
      },
    }));
    const told: Appended[] = [];
    const became = await createTags(db, (appended) => told.push(appended), [...asked, ...asked.slice(0, 1)], true);
    const codes = became.map((tag) => (tag instanceof Error ? tag.code : tag.name));
    expect(codes).toEqual(["together 1", "TAG_ALREADY_EXISTS", "together 2", "together 1", "TAG_ALREADY_EXISTS"]);
    expect(told.flatMap((m) => [...m])).toEqual([["tag_created", { count: 3, chronicled: 3 }]]);
    const rows = await db.execute(sql`
      select t.id, t.user_id, c.actor_id, c.correlation_id, s.title, o.traceparent as searched, x.traceparent as chronicled
        from tags t
        join search_index s on s.entity_id = t.id
        join search_outbox_events o on o.entity_id = t.id
        join chronicle_events c on c.entity_id = t.id
        join chronicle_outbox_events x on x.entity_id = c.id
       where t.name like 'together%' order by c.correlation_id`);
    const written = [0, 2, 3].map((i) => {
      const [one, tag] = [asked[i], became[i]];
      if (one === undefined || tag === undefined || tag instanceof Error) throw new Error("not written");
      const trace = { searched: `trace ${i}`, chronicled: `trace ${i}` };
      const { actorId, correlationId } = one.cause;
      return {
        id: tag.id,
        user_id: actorId,
        actor_id: actorId,
        correlation_id: correlationId,
        title: tag.name,
        ...trace,
      };
    });
    expect([...rows] as unknown[]).toEqual(written);
  });
});

test("two crowds that want the same names in different orders wait for each other and come to an end", async () => {
  // Each row takes its time, so that both have begun when either wants what the other has.
  await db.execute(
    sql`create function linger() returns trigger language plpgsql as $$ begin perform pg_sleep(0.05); return new; end $$`,
  );
  await db.execute(sql`create trigger linger before insert on tags for each row execute function linger()`);
  const names = ["u", "v", "w", "x", "y", "z"].map((letter) => `wanted ${letter}`);
  const wanting = (order: readonly string[]) =>
    createTags(
      db,
      () => undefined,
      order.map((name) => ({ cause, fields: { name } })),
      true,
    );
  const crowds = await Promise.all([wanting(names), wanting(names.toReversed())]);
  await db.execute(sql`drop trigger linger on tags`);
  const created = crowds.flat().flatMap((tag) => (tag instanceof Error ? [] : [tag.name]));
  expect(created.toSorted()).toEqual(names);
});

test("rows, index, events and chronicle say the same after all of this", async () => {
  expect(await contradictions(db)).toEqual([]);
});

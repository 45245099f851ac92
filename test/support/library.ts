import { sql } from "drizzle-orm";
import type { Db } from "../../src/db/client.ts";
import type { Appended } from "../../src/events.ts";
import { createBlocks } from "../../src/library/blocks.ts";
import { createBook } from "../../src/library/books.ts";
import { createBookshelf } from "../../src/library/bookshelves.ts";
import { type Cause, type Unit, write } from "../../src/library/change.ts";
import { createLibrary } from "../../src/library/libraries.ts";
import { createTags, type NewTag, type Tag } from "../../src/library/tags.ts";

export const cause: Cause = {
  actorId: "550e8400-e29b-41d4-a716-446655440000",
  source: "api",
  correlationId: "test",
  traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  tracestate: "vendor=1",
};

/** One write, as the tests' user; `appended` collects what was announced. */
export function inOneWrite<T>(db: Db, work: (unit: Unit) => Promise<T>, appended: Appended[] = []): Promise<T> {
  return write(db, cause, (told) => appended.push(told), work);
}

/** One tag at the top, as the tests' user; `appended` collects what was announced. Throws what it is refused with. */
export async function createTag(db: Db, fields: NewTag, appended: Appended[] = []): Promise<Tag> {
  const [tag] = await createTags(db, (told) => appended.push(told), [{ cause, fields }], true);
  if (tag === undefined || tag instanceof Error) throw tag ?? new Error("nothing became of a tag");
  return tag;
}

/** What `work` is rejected with; throws when it is not. */
export function rejection(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => {
      throw new Error("expected a rejection");
    },
    (error: unknown) => error,
  );
}

/** A library with one bookshelf, one book and `count` blocks in it. */
export async function shelve(db: Db, name: string, count = 1) {
  return await inOneWrite(db, async (unit) => {
    const library = await createLibrary(unit, { name });
    const shelf = await createBookshelf(unit, { libraryId: library.id, name: "Shelf" });
    const book = await createBook(unit, { bookshelfId: shelf.id, title: "Book" });
    const blocks = await createBlocks(
      unit,
      book.id,
      Array.from({ length: count }, (_, i) => ({ type: "text" as const, content: `block ${i}` })),
    );
    return { library, shelf, book, blocks };
  });
}

/** Rows of every table that a write touches. */
export async function countRows(db: Db): Promise<Record<string, number>> {
  const [row] = await db.execute<Record<string, number>>(sql`
    select (select count(*) from libraries)::int as libraries, (select count(*) from bookshelves)::int as bookshelves,
           (select count(*) from books)::int as books, (select count(*) from blocks)::int as blocks, (select count(*) from tags)::int as tags,
           (select count(*) from search_index)::int as search_index, (select count(*) from chronicle_events)::int as chronicle_events,
           (select count(*) from search_outbox_events)::int as search_outbox_events,
           (select count(*) from chronicle_outbox_events)::int as chronicle_outbox_events`);
  return row ?? {};
}

/**
 * What must hold after any sequence of writes: each entity's search_index row has its version and is a tombstone exactly when it is deleted; the
 * newest search event says the same; versions of one entity's events are all different and rise with their ids; every chronicle event is queued once.
 * Returns the violations.
 */
export async function contradictions(db: Db): Promise<Record<string, unknown>[]> {
  return await db.execute(sql`
    with entity as (
      select 'library' as type, id, version, soft_deleted_at as gone from libraries
      union all select 'bookshelf', id, version, soft_deleted_at from bookshelves
      union all select 'book', id, version, soft_deleted_at from books
      union all select 'block', id, version, soft_deleted_at from blocks
      union all select 'tag', id, version, deleted_at from tags
    ), newest as (
      select distinct on (entity_type, entity_id) entity_type, entity_id, event_version, op from search_outbox_events order by entity_type, entity_id, id desc
    )
    select 'row without its index row or event, or with another version or state' as fault, e.type, e.id::text
      from entity e
      left join search_index s on s.entity_type = e.type and s.entity_id = e.id
      left join newest n on n.entity_type = e.type and n.entity_id = e.id
     where s.event_version is distinct from e.version or n.event_version is distinct from e.version
        or (s.deleted_at is not null) <> (e.gone is not null) or (n.op = 'delete') <> (e.gone is not null)
        or (s.deleted_at is not null and (s.title <> '' or s.text <> '' or s.snippet is not null))
    union all
    select 'event versions do not rise', entity_type, entity_id::text
      from (select *, lag(event_version, 1, 0::bigint) over (partition by entity_type, entity_id order by id) as before from search_outbox_events) v
     where event_version <= before
    union all
    select 'chronicle event not queued exactly once', c.entity_type, c.id::text
      from chronicle_events c left join chronicle_outbox_events o on o.entity_id = c.id
     group by c.id, c.entity_type having count(o.id) <> 1
    union all
    select 'living child below a deleted parent', 'bookshelf', b.id::text from bookshelves b join libraries l on l.id = b.library_id where b.soft_deleted_at is null and l.soft_deleted_at is not null
    union all
    select 'living child below a deleted parent', 'book', b.id::text from books b join bookshelves s on s.id = b.bookshelf_id where b.soft_deleted_at is null and s.soft_deleted_at is not null
    union all
    select 'living child below a deleted parent', 'block', k.id::text from blocks k join books b on b.id = k.book_id where k.soft_deleted_at is null and b.soft_deleted_at is not null`);
}

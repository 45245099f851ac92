import { type SQL, sql } from "drizzle-orm";
import type { EntityType, EventType } from "../events.ts";
import type { Unit } from "./change.ts";

type Container = "library" | "bookshelf" | "book";
type Doomed = { id: string; version: string; library_id: string; book_id: string | null };

/** Rows per statement: a delete of any size stays below the statement timeout and the connection's deadline. */
const rowsAtOnce = 5000;

/**
 * Soft-deletes the living rows of one table that `where` names, a slice at a time, and records each with a version of its own.
 * LIMIT counts rows after their lock was waited for and their state looked at again, so a short slice is the last one.
 */
async function deleteRows(
  unit: Unit,
  entityType: EntityType,
  eventType: EventType,
  because: Readonly<Record<string, string>>,
  statement: (limit: number) => SQL,
): Promise<void> {
  let count: number;
  do {
    const doomed = await unit.tx.execute<Doomed>(statement(rowsAtOnce));
    await unit.record(
      doomed.map((row) => ({
        entityType,
        entityId: row.id,
        version: BigInt(row.version),
        op: "delete",
        eventType,
        libraryId: row.library_id,
        bookId: row.book_id,
        title: "",
        text: "",
        payload: because,
      })),
    );
    count = doomed.length;
  } while (count === rowsAtOnce);
}

/**
 * Soft-deletes all that lives below a container that the caller has just deleted, from the top down. A writer that adds below it holds its
 * parent's lock until it commits: so whoever was first, the statement for the next level sees what it added, or it sees the deleted parent.
 */
export async function deleteBelow(unit: Unit, container: Container, id: string): Promise<void> {
  const because = { deleted_with: container, [`${container}_id`]: id };
  if (container === "library")
    await deleteRows(
      unit,
      "bookshelf",
      "bookshelf_deleted",
      because,
      (limit) => sql`
        with doomed as materialized (
          select id from bookshelves where library_id = ${id} and soft_deleted_at is null limit ${limit} for no key update
        )
        update bookshelves b set soft_deleted_at = now(), status = 'deleted', version = b.version + 1, updated_at = now()
          from doomed where b.id = doomed.id
        returning b.id, b.version::text, b.library_id, null::uuid as book_id`,
    );
  if (container !== "book")
    await deleteRows(
      unit,
      "book",
      "book_deleted",
      because,
      (limit) => sql`
        with doomed as materialized (
          select id from books where ${sql.identifier(`${container}_id`)} = ${id} and soft_deleted_at is null limit ${limit} for no key update
        )
        update books b set soft_deleted_at = now(), status = 'deleted', version = b.version + 1, updated_at = now()
          from doomed where b.id = doomed.id
        returning b.id, b.version::text, b.library_id, b.id as book_id`,
    );
  const books =
    container === "book"
      ? sql`${id}::uuid`
      : sql`select id from books where ${sql.identifier(`${container}_id`)} = ${id}`;
  await deleteRows(
    unit,
    "block",
    "block_soft_deleted",
    because,
    (limit) => sql`
      with doomed as materialized (
        select id from blocks where book_id in (${books}) and soft_deleted_at is null limit ${limit} for no key update
      )
      update blocks k set soft_deleted_at = now(), version = k.version + 1, updated_at = now()
        from doomed, books b where k.id = doomed.id and b.id = k.book_id
      returning k.id, k.version::text, b.library_id, k.book_id`,
  );
}

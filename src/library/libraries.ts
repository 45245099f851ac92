import { eq, sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { libraries } from "../db/schema.ts";
import type { EventType } from "../events.ts";
import { deleteBelow } from "./cascade.ts";
import type { Change, Unit } from "./change.ts";
import {
  type Expected,
  type Listed,
  listLiving,
  living,
  type Page,
  readLiving,
  unlessTaken,
  unwritable,
} from "./living.ts";

export type Library = typeof libraries.$inferSelect;

export type LibraryFields = {
  readonly name: string;
  readonly description?: string | null;
  readonly themeColor?: string | null;
};

const changed = (library: Library, eventType: EventType, payload: Change["payload"]): Change => ({
  entityType: "library",
  entityId: library.id,
  version: library.version,
  op: library.softDeletedAt === null ? "upsert" : "delete",
  eventType,
  libraryId: library.id,
  bookId: null,
  title: library.name,
  text: library.description ?? "",
  payload,
});

const taken = <T>(work: Promise<T>) => unlessTaken("uq_libraries_user_name", "LIBRARY_ALREADY_EXISTS", work);

/** Throws LIBRARY_ALREADY_EXISTS. */
export async function createLibrary(unit: Unit, fields: LibraryFields): Promise<Library> {
  const [library] = await taken(
    unit.tx
      .insert(libraries)
      .values({ id: Bun.randomUUIDv7(), userId: unit.cause.actorId, ...fields })
      .returning()
      .execute(),
  );
  if (!library) throw new Error("insert returned no row");
  await unit.record([changed(library, "library_created", {})]);
  return library;
}

/** Changes the fields that are given. Throws LIBRARY_NOT_FOUND, LIBRARY_ALREADY_EXISTS, VERSION_MISMATCH. */
export async function changeLibrary(
  unit: Unit,
  id: string,
  patch: Partial<LibraryFields>,
  expected?: Expected,
): Promise<Library> {
  const [library] = await taken(
    unit.tx
      .update(libraries)
      .set({ ...patch, version: sql`${libraries.version} + 1`, updatedAt: sql`now()`, lastActivityAt: sql`now()` })
      .where(living("LIBRARY", id, expected))
      .returning()
      .execute(),
  );
  if (!library) throw await unwritable(unit.tx, "change", "LIBRARY", id);
  const eventType = patch.name === undefined ? "library_updated" : "library_renamed";
  await unit.record([changed(library, eventType, { fields: Object.keys(patch) })]);
  return library;
}

/** Soft-deletes a library with all that is in it. Throws LIBRARY_NOT_FOUND, LIBRARY_ALREADY_DELETED, VERSION_MISMATCH. */
export async function deleteLibrary(unit: Unit, id: string, expected?: Expected): Promise<void> {
  const [library] = await unit.tx
    .update(libraries)
    .set({ softDeletedAt: sql`now()`, version: sql`${libraries.version} + 1`, updatedAt: sql`now()` })
    .where(living("LIBRARY", id, expected))
    .returning();
  if (!library) throw await unwritable(unit.tx, "delete", "LIBRARY", id);
  await unit.record([changed(library, "library_deleted", {})]);
  await deleteBelow(unit, "library", id);
}

/** Throws LIBRARY_NOT_FOUND, also for a deleted one. */
export const readLibrary = (db: Db, id: string): Promise<Library> => readLiving(db, "LIBRARY", id);

/** The user's own, by name. */
export const listLibraries = (db: Db, userId: string, page: Page): Promise<Listed<Library>> =>
  listLiving(db, "LIBRARY", eq(libraries.userId, userId), [libraries.name], page);

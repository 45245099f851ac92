import { and, eq, isNull, sql } from "drizzle-orm";
import type { Db, Tx } from "../db/client.ts";
import { tags } from "../db/schema.ts";
import { WordloomError } from "../errors.ts";
import type { EventType } from "../events.ts";
import { type Asked, type Change, type Committed, create, type Unit } from "./change.ts";
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

export type Tag = typeof tags.$inferSelect;

export type TagFields = {
  readonly name: string;
  /** #RRGGBB or #RRGGBBAA. */
  readonly color?: string;
  readonly icon?: string | null;
  readonly description?: string | null;
  /** Null: at the top. */
  readonly parentTagId?: string | null;
};

/** Levels run from 0: tags nest three deep. */
const deepest = 2;

type Searched = Pick<Tag, "id" | "version" | "softDeletedAt" | "name" | "description">;

const changed = (tag: Searched, eventType: EventType, payload: Change["payload"]): Change => ({
  entityType: "tag",
  entityId: tag.id,
  version: tag.version,
  op: tag.softDeletedAt === null ? "upsert" : "delete",
  eventType,
  libraryId: null,
  bookId: null,
  title: tag.name,
  text: tag.description ?? "",
  payload,
});

/**
 * Whatever reads or writes the shape of a user's tag tree goes one at a time: depth and cycles are properties of many rows, which row locks
 * alone cannot hold. Held until the transaction ends. Sent as a statement of its own, so that the next one sees what was committed meanwhile.
 */
const lockHierarchy = (tx: Tx, userId: string) =>
  tx.execute(sql`select pg_advisory_xact_lock(hashtextextended('tags:' || ${userId}::text, 0))`);

/** The level below `parentTagId`. Throws TAG_NOT_FOUND. The hierarchy must be locked. */
async function levelBelow(unit: Unit, parentTagId: string): Promise<number> {
  const [parent] = await unit.tx
    .select({ level: tags.level })
    .from(tags)
    .where(and(eq(tags.id, parentTagId), eq(tags.userId, unit.cause.actorId), isNull(tags.softDeletedAt)));
  if (!parent) throw new WordloomError("TAG_NOT_FOUND", "There is no such parent tag");
  return parent.level + 1;
}

/** A tag to be created at the top. */
export type NewTag = Omit<TagFields, "parentTagId">;

/** How long the first attempt of several waits for a name that another transaction is taking. */
const impatienceMs = 50;

/**
 * Creates tags at the top, for several callers in one statement. Returns what became of each, in their order: TAG_ALREADY_EXISTS also for the second of two that are asked for
 * here. Throws what the driver throws, with nothing created; soon where a name is locked and it is not to be `patient`.
 */
export async function createTags(
  db: Db,
  committed: Committed,
  asked: readonly Asked<NewTag>[],
  patient: boolean,
): Promise<readonly (Tag | WordloomError)[]> {
  const made = asked.map(({ cause, fields }) => ({
    cause,
    tag: {
      id: Bun.randomUUIDv7(),
      userId: cause.actorId,
      name: fields.name,
      color: fields.color ?? "#6366F1",
      iconEmoji: fields.icon ?? null,
      description: fields.description ?? null,
      parentTagId: null,
      level: 0,
      usageCount: 0,
      version: 1n,
      softDeletedAt: null,
    },
  }));
  const rows = JSON.stringify(
    made.map(({ tag }) => [tag.id, tag.userId, tag.name, tag.color, tag.iconEmoji, tag.description]),
  );
  // By name, so that two batches that want the same names cannot deadlock. Among equal names, in order of arrival.
  const created = await create<{ readonly id: string; readonly created_at: string; readonly updated_at: string }>(
    db,
    committed,
    made.map(({ cause, tag }) => ({ ...changed(tag, "tag_created", {}), cause })),
    sql`insert into tags (id, user_id, name, color, icon_emoji, description, level, usage_count, version)
        select (t->>0)::uuid, (t->>1)::uuid, t->>2, t->>3, t->>4, t->>5, 0, 0, 1
          from (select set_config('lock_timeout', ${patient ? "0" : String(impatienceMs)}, true)) locks, jsonb_array_elements(${rows}::jsonb) with ordinality as r(t, n)
         order by t->>1, t->>2, n
            on conflict (user_id, name) where deleted_at is null do nothing
        returning id, created_at, updated_at`,
  );
  return made.map(({ tag }) => {
    const row = created.get(tag.id);
    if (!row) return new WordloomError("TAG_ALREADY_EXISTS");
    return { ...tag, createdAt: new Date(row.created_at), updatedAt: new Date(row.updated_at) };
  });
}

type Moved = { readonly level: number; readonly by: number };

/** Where a tag and all below it go when it moves. Throws TAG_NOT_FOUND, TAG_INVALID_HIERARCHY. The hierarchy must be locked. */
async function movement(unit: Unit, id: string, parentTagId: string | null): Promise<Moved> {
  const below = await unit.tx.execute<{ id: string; level: number }>(sql`
    with recursive below as (
      select id, level from tags where id = ${id} and deleted_at is null
      union
      select t.id, t.level from tags t join below b on t.parent_tag_id = b.id where t.deleted_at is null
    )
    select id, level from below order by level`);
  const [self] = below;
  if (!self) throw new WordloomError("TAG_NOT_FOUND");
  const level = parentTagId === null ? 0 : await levelBelow(unit, parentTagId);
  const by = level - self.level;
  if (below.some((t) => t.id === parentTagId || t.level + by > deepest))
    throw new WordloomError("TAG_INVALID_HIERARCHY");
  return { level, by };
}

/** Shifts the levels of all tags below `id`; `detach` also moves its direct children to the top. Each is a write of its own, with its own version. */
async function shiftBelow(unit: Unit, id: string, by: number, detach: boolean): Promise<void> {
  const shifted = await unit.tx
    .update(tags)
    .set({
      level: sql`${tags.level} + ${by}`,
      ...(detach ? { parentTagId: sql`nullif(${tags.parentTagId}, ${id})` } : {}),
      version: sql`${tags.version} + 1`,
      updatedAt: sql`now()`,
    })
    .where(
      sql`${tags.id} in (
        with recursive below as (
          select id from tags where parent_tag_id = ${id} and deleted_at is null
          union
          select t.id from tags t join below b on t.parent_tag_id = b.id where t.deleted_at is null
        )
        select id from below)`,
    )
    .returning();
  await unit.record(shifted.map((tag) => changed(tag, "tag_moved", { level: tag.level })));
}

/** Changes the fields that are given. Throws TAG_NOT_FOUND, TAG_ALREADY_EXISTS, TAG_INVALID_HIERARCHY, VERSION_MISMATCH. */
export async function changeTag(unit: Unit, id: string, patch: Partial<TagFields>, expected?: Expected): Promise<Tag> {
  const { icon, parentTagId, ...same } = patch;
  let moved: Moved | undefined;
  if (parentTagId !== undefined) {
    await lockHierarchy(unit.tx, unit.cause.actorId);
    moved = await movement(unit, id, parentTagId);
  }
  const [tag] = await unlessTaken(
    "uq_tags_user_name",
    "TAG_ALREADY_EXISTS",
    unit.tx
      .update(tags)
      .set({
        ...same,
        ...(icon === undefined ? {} : { iconEmoji: icon }),
        ...(moved === undefined ? {} : { parentTagId: parentTagId ?? null, level: moved.level }),
        version: sql`${tags.version} + 1`,
        updatedAt: sql`now()`,
      })
      .where(living("TAG", id, expected))
      .returning()
      .execute(),
  );
  if (!tag) throw await unwritable(unit.tx, "change", "TAG", id);
  const eventType = moved ? "tag_moved" : patch.name === undefined ? "tag_updated" : "tag_renamed";
  await unit.record([changed(tag, eventType, { fields: Object.keys(patch) })]);
  if (moved && moved.by !== 0) await shiftBelow(unit, id, moved.by, false);
  return tag;
}

/** Soft-deletes a tag; the tags directly below it move to the top. Throws TAG_NOT_FOUND, TAG_ALREADY_DELETED, VERSION_MISMATCH. */
export async function deleteTag(unit: Unit, id: string, expected?: Expected): Promise<void> {
  await lockHierarchy(unit.tx, unit.cause.actorId);
  const [tag] = await unit.tx
    .update(tags)
    .set({ softDeletedAt: sql`now()`, version: sql`${tags.version} + 1`, updatedAt: sql`now()` })
    .where(living("TAG", id, expected))
    .returning();
  if (!tag) throw await unwritable(unit.tx, "delete", "TAG", id);
  await unit.record([changed(tag, "tag_deleted", {})]);
  await shiftBelow(unit, id, -(tag.level + 1), true);
}

/** Throws TAG_NOT_FOUND, also for a deleted one. */
export const readTag = (db: Db, id: string): Promise<Tag> => readLiving(db, "TAG", id);

/** The user's own, by name. */
export const listTags = (db: Db, userId: string, page: Page): Promise<Listed<Tag>> =>
  listLiving(db, "TAG", eq(tags.userId, userId), [tags.name], page);

import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import type { EntityType } from "../events.ts";

/** A document that was found, by what it is of and the version it was made from. */
type Candidate = { readonly entityType: string; readonly entityId: string; readonly version: number };

/** What Postgres holds of a found entity. */
export type Found = {
  readonly entityType: EntityType;
  readonly entityId: string;
  readonly libraryId: string | null;
  readonly bookId: string | null;
  /** Its own title; of a block the first 100 characters of its text. */
  readonly title: string;
  /** The beginning of its text. */
  readonly snippet: string;
  /** Where it is, from the library down: "Library / Shelf / Book". Null for what is in nothing. */
  readonly path: string | null;
};

export type Current<T> = {
  readonly served: readonly (Found & { readonly candidate: T })[];
  /** Documents of versions that Postgres has never had: it was restored from a backup, or somebody else writes to the index. */
  readonly ahead: number;
};

/**
 * What is served of the documents that were found, in their order, each with its candidate. A document is left out when its entity is deleted or
 * unknown, or of another version than the document: so nothing stale and nothing deleted is ever served, however far the projection is behind.
 * What was changed a moment ago is found again once it is projected.
 */
export async function current<T extends Candidate>(db: Db, candidates: readonly T[]): Promise<Current<T>> {
  if (candidates.length === 0) return { served: [], ahead: 0 };
  const asked = JSON.stringify(candidates.map((c) => [c.entityType, c.entityId, c.version]));
  const rows = await db.execute<Found & { place: number; ahead: boolean }>(sql`
    select s.entity_type as "entityType", s.entity_id as "entityId", s.library_id as "libraryId", s.book_id as "bookId",
           case s.entity_type when 'block' then left(s.text, 100) else s.title end as title,
           coalesce(s.snippet, '') as snippet,
           case s.entity_type
             when 'block' then concat_ws(' / ', l.name, f.name, b.title)
             when 'book' then concat_ws(' / ', l.name, f.name)
             when 'bookshelf' then l.name
           end as path,
           (n - 1)::int as place, s.event_version < (c->>2)::bigint as ahead
      from jsonb_array_elements(${asked}::jsonb) with ordinality as c(c, n)
      join search_index s on s.entity_type = c->>0 and s.entity_id = (c->>1)::uuid
      left join libraries l on l.id = s.library_id
      left join books b on b.id = s.book_id
      left join bookshelves f on f.id = b.bookshelf_id
     where s.deleted_at is null and s.event_version <= (c->>2)::bigint
     order by n`);
  const served = rows.flatMap(({ place, ahead, ...found }) => {
    const candidate = candidates[place];
    return candidate === undefined || ahead ? [] : [{ ...found, candidate }];
  });
  return { served, ahead: rows.length - served.length };
}

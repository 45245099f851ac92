import { sql } from "drizzle-orm";
import type { Db, Tx } from "../db/client.ts";
import type { EntityType } from "../db/schema.ts";
import { append } from "../outbox/append.ts";
import { type Op, queues, type TraceContext } from "../outbox/event.ts";
import type { EventType } from "./event-types.ts";

/** On whose behalf and because of what a write happens: goes into the chronicle and, as trace context, into the outbox. */
export type Cause = TraceContext & {
  readonly actorId: string;
  readonly source: "api" | "import";
  readonly correlationId: string | null;
};

/** What one write did to one entity, as search and the chronicle see it. */
export type Change = {
  readonly entityType: EntityType;
  readonly entityId: string;
  /** The entity's version after the write. */
  readonly version: bigint;
  readonly op: Op;
  readonly eventType: EventType;
  readonly libraryId: string | null;
  readonly bookId: string | null;
  /** What is searched; ignored for a delete, whose tombstone keeps no text. */
  readonly title: string;
  readonly text: string;
  /** Small facts for the chronicle, never what users wrote, names included: it is kept when the entity is deleted. */
  readonly payload: Readonly<Record<string, unknown>>;
  /** False when the chronicle has this already (dedupe of frequent changes); search hears of every change. */
  readonly chronicled?: boolean;
};

/** One open transaction of the library. What `record` is told commits with the verb's own rows, or not at all: every verb calls it for all that it wrote. */
export type Unit = {
  readonly tx: Tx;
  readonly cause: Cause;
  readonly record: (changes: readonly Change[]) => Promise<void>;
};

/** How many events of each kind a committed write appended: `count` to the search queue, `chronicled` to the chronicle's. */
export type Appended = ReadonlyMap<
  string,
  { readonly eventType: string; readonly entityType: EntityType; readonly count: number; readonly chronicled: number }
>;

const snippetLength = 200;
/** Changes per statement: keeps each one far below the statement timeout, however much one write deletes. */
const recordedAtOnce = 2000;

/** The first characters as people count them: a slice of UTF-16 units could end in half of one, which Postgres refuses. */
function firstCharacters(text: string, count: number): string {
  return Array.from(text.slice(0, 2 * count))
    .slice(0, count)
    .join("");
}

type Told = Change & { readonly chronicleId: string };

/** search_index rows and chronicle events, in one statement. */
async function writeReadModels(tx: Tx, cause: Cause, changes: readonly Told[]): Promise<void> {
  const rows = JSON.stringify(
    changes.map((c) => [
      c.entityType,
      c.entityId,
      c.libraryId,
      c.bookId,
      c.op === "delete" ? "" : c.title,
      c.op === "delete" ? "" : c.text,
      c.op === "delete" ? null : firstCharacters(c.text, snippetLength),
      c.version.toString(),
      c.op,
      c.chronicleId,
      c.eventType,
      c.payload,
      c.chronicled !== false,
    ]),
  );
  // The guard on the version makes an older write of a race lose, whatever the order of commits.
  await tx.execute(sql`
    with change as materialized (
      select c->>0 as entity_type, (c->>1)::uuid as entity_id, (c->>2)::uuid as library_id, (c->>3)::uuid as book_id, c
        from jsonb_array_elements(${rows}::jsonb) as r(c)
    ), indexed as (
      insert into search_index as s (entity_type, entity_id, library_id, book_id, title, text, snippet, event_version, deleted_at)
      select entity_type, entity_id, library_id, book_id, left(c->>4, 255), c->>5, c->>6, (c->>7)::bigint, case c->>8 when 'delete' then now() end
        from change
          on conflict (entity_type, entity_id) do update
         set library_id = excluded.library_id, book_id = excluded.book_id, title = excluded.title, text = excluded.text, snippet = excluded.snippet,
             event_version = excluded.event_version, deleted_at = excluded.deleted_at, updated_at = now()
       where s.event_version < excluded.event_version
    )
    insert into chronicle_events (id, event_type, entity_type, entity_id, library_id, book_id, block_id, payload, actor_id, actor_kind, source, correlation_id)
    select (c->>9)::uuid, c->>10, entity_type, entity_id, library_id, book_id, case entity_type when 'block' then entity_id end, c->11,
           ${cause.actorId}::uuid, 'user', ${cause.source}, ${cause.correlationId}
      from change where (c->>12)::boolean`);
}

async function record(tx: Tx, cause: Cause, changes: readonly Change[]): Promise<void> {
  const told = changes.map((c) => ({ ...c, chronicleId: Bun.randomUUIDv7() }));
  const search = told.map((c) => ({
    entityType: c.entityType,
    entityId: c.entityId,
    op: c.op,
    eventVersion: c.version,
  }));
  const chronicle = told
    .filter((c) => c.chronicled !== false)
    .map((c) => ({ entityType: "chronicle_event", entityId: c.chronicleId, op: "upsert", eventVersion: 0n }) as const);
  // Sent together: postgres.js pipelines them on the transaction's connection, one round trip for both.
  await Promise.all([
    writeReadModels(tx, cause, told),
    append(
      tx,
      [
        { queue: queues.search, events: search },
        { queue: queues.chronicle, events: chronicle },
      ],
      cause,
    ),
  ]);
}

/**
 * Runs one write of the library: domain rows, search_index, chronicle event and both outbox rows in ONE transaction (decision 1).
 * `committed` hears what was appended, after the commit and only then. Throws what `work` throws, with nothing written.
 */
export async function write<T>(
  db: Db,
  cause: Cause,
  committed: (appended: Appended) => void,
  work: (unit: Unit) => Promise<T>,
): Promise<T> {
  const appended = new Map<string, { eventType: string; entityType: EntityType; count: number; chronicled: number }>();
  const result = await db.transaction((tx) =>
    work({
      tx,
      cause,
      record: async (changes) => {
        for (let at = 0; at < changes.length; at += recordedAtOnce)
          await record(tx, cause, changes.slice(at, at + recordedAtOnce));
        for (const { eventType, entityType, chronicled } of changes) {
          const sum = appended.get(eventType) ?? { eventType, entityType, count: 0, chronicled: 0 };
          sum.count += 1;
          if (chronicled !== false) sum.chronicled += 1;
          appended.set(eventType, sum);
        }
      },
    }),
  );
  if (appended.size > 0) committed(appended);
  return result;
}

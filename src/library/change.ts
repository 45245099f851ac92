import { type SQL, sql } from "drizzle-orm";
import type { Db, Tx } from "../db/client.ts";
import type { Appended, EntityType, EventType, Op, TraceContext } from "../events.ts";
import { appending } from "../outbox/append.ts";
import { queues } from "../outbox/queue.ts";

/** On whose behalf and because of what a write happens: goes into the chronicle and, as trace context, into the outbox. */
export type Cause = TraceContext & {
  readonly actorId: string;
  readonly source: "api" | "import";
  readonly correlationId: string | null;
};

/** What one of several callers asks for. */
export type Asked<Fields> = { readonly cause: Cause; readonly fields: Fields };

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

/** One open transaction of the library. What is passed to `record` commits with the verb's own rows, or not at all: every verb calls it for everything it wrote. */
export type Unit = {
  readonly tx: Tx;
  readonly cause: Cause;
  /** Writes search_index, the chronicle and both queues. */
  readonly record: (changes: readonly Change[]) => Promise<void>;
};

/** A change with the cause that is its own. */
export type Caused = Change & { readonly cause: Cause };

const snippetLength = 200;
/** Changes per statement: keeps each one far below the statement timeout, however much one write deletes. */
const recordedAtOnce = 2000;

/** The first characters as people count them: a slice of UTF-16 units could end in half of one, which Postgres refuses. */
function firstCharacters(text: string, count: number): string {
  return Array.from(text.slice(0, 2 * count))
    .slice(0, count)
    .join("");
}

/**
 * search_index rows, chronicle events and the events of both queues: of all `changes`, or of those whose entity's id `own` returns, an INSERT … RETURNING of a verb's own rows.
 * One statement, which returns what `own` returns: each costs as much again as the rows in it.
 */
function recording(changes: readonly Caused[], own: SQL | undefined): SQL {
  const rows = JSON.stringify(
    changes.map(({ cause, ...c }) => [
      c.entityType,
      c.entityId,
      c.libraryId,
      c.bookId,
      c.op === "delete" ? "" : c.title,
      c.op === "delete" ? "" : c.text,
      c.op === "delete" ? null : firstCharacters(c.text, snippetLength),
      c.version.toString(),
      c.op,
      Bun.randomUUIDv7(),
      c.eventType,
      c.payload,
      c.chronicled !== false,
      cause.actorId,
      cause.source,
      cause.correlationId,
      cause.traceparent,
      cause.tracestate,
    ]),
  );
  const searched = sql`select entity_type, entity_id, op, event_version, traceparent, tracestate from change order by n`;
  const chronicled = sql`select 'chronicle_event', chronicle_id, 'upsert', 0, traceparent, tracestate from change where chronicled order by n`;
  // The guard on the version makes an older write of a race lose, whatever the order of commits.
  return sql`
    with own as (${own ?? sql`select null::uuid as id where false`}
    ), change as materialized (
      select c->>0 as entity_type, (c->>1)::uuid as entity_id, (c->>2)::uuid as library_id, (c->>3)::uuid as book_id, c->>4 as title, c->>5 as body, c->>6 as snippet,
             (c->>7)::bigint as event_version, c->>8 as op, (c->>9)::uuid as chronicle_id, c->>10 as event_type, c->11 as payload, (c->>12)::boolean as chronicled,
             (c->>13)::uuid as actor_id, c->>14 as source, c->>15 as correlation_id, c->>16 as traceparent, c->>17 as tracestate, n
        from jsonb_array_elements(${rows}::jsonb) with ordinality as r(c, n)
       where ${own === undefined ? sql`true` : sql`(c->>1)::uuid in (select id from own)`}
    ), indexed as (
      insert into search_index as s (entity_type, entity_id, library_id, book_id, title, text, snippet, event_version, deleted_at)
      select entity_type, entity_id, library_id, book_id, left(title, 255), body, snippet, event_version, case op when 'delete' then now() end
        from change
          on conflict (entity_type, entity_id) do update
         set library_id = excluded.library_id, book_id = excluded.book_id, title = excluded.title, text = excluded.text, snippet = excluded.snippet,
             event_version = excluded.event_version, deleted_at = excluded.deleted_at, updated_at = now()
       where s.event_version < excluded.event_version
    ), told as (
      insert into chronicle_events (id, event_type, entity_type, entity_id, library_id, book_id, block_id, payload, actor_id, actor_kind, source, correlation_id)
      select chronicle_id, event_type, entity_type, entity_id, library_id, book_id, case entity_type when 'block' then entity_id end, payload,
             actor_id, 'user', source, correlation_id
        from change where chronicled
    ), searched as (${appending(queues.search, searched)}
    ), chronicled as (${appending(queues.chronicle, chronicled)}
    )
    select * from own`;
}

type Counts = Map<EventType, { count: number; chronicled: number }>;

function count(counts: Counts, changes: readonly Change[]): void {
  for (const { eventType, chronicled } of changes) {
    const sum = counts.get(eventType) ?? { count: 0, chronicled: 0 };
    sum.count += 1;
    if (chronicled !== false) sum.chronicled += 1;
    counts.set(eventType, sum);
  }
}

/** Hears what was appended, after the commit and only then. */
export type Committed = (appended: Appended) => void;

/**
 * Runs one write of the library: domain rows, search_index, chronicle event and both outbox rows in ONE transaction (decision 1).
 * Throws what `work` throws, with nothing written.
 */
export async function write<T>(
  db: Db,
  cause: Cause,
  committed: Committed,
  work: (unit: Unit) => Promise<T>,
): Promise<T> {
  const counts: Counts = new Map();
  const result = await db.transaction((tx) =>
    work({
      tx,
      cause,
      record: async (changes) => {
        for (let at = 0; at < changes.length; at += recordedAtOnce) {
          const caused = changes.slice(at, at + recordedAtOnce).map((change) => ({ ...change, cause }));
          await tx.execute(recording(caused, undefined));
        }
        count(counts, changes);
      },
    }),
  );
  if (counts.size > 0) committed(counts);
  return result;
}

/**
 * Creates entities for several callers in one statement, which is its own transaction: `own` inserts the verb's rows, those that it can, and returns the id of each; what is
 * recorded are the `changes` of these. A round trip in place of three, and for one entity half the work for Postgres. Returns what `own` returns.
 */
export async function create<R extends { readonly id: string }>(
  db: Db,
  committed: Committed,
  changes: readonly Caused[],
  own: SQL,
): Promise<ReadonlyMap<string, R>> {
  const rows = (await db.execute(recording(changes, own))) as unknown as R[];
  const created = new Map(rows.map((row) => [row.id, row]));
  const counts: Counts = new Map();
  count(
    counts,
    changes.filter(({ entityId }) => created.has(entityId)),
  );
  if (counts.size > 0) committed(counts);
  return created;
}

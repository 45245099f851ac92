import type { Client } from "@elastic/elasticsearch";
import { sql } from "drizzle-orm";
import type { Db } from "../../db/client.ts";
import { array } from "../../db/sql.ts";
import { queues } from "../../outbox/queue.ts";
import { unfinishedOf } from "../../outbox/unfinished.ts";
import { countRows, past } from "../pages.ts";
import { interrupted, type Progress } from "../rebuild.ts";

/**
 * How a document differs from Postgres: it is not there, or of an older version, or of one that Postgres has never had; or it is there, though its entity is deleted or unknown.
 */
export type Difference = {
  readonly id: string;
  readonly what: "missing" | "behind" | "ahead" | "deleted" | "unknown";
  /** Why: an event that failed for good; null where no event is left that would mend it. */
  readonly because: "failed" | null;
};

export type Checked = {
  /** What can be found, as Postgres has it. */
  readonly documents: number;
  /** Documents that differ because their events are on the way. */
  readonly waiting: number;
  /** Documents that differ and should not. */
  readonly wrong: number;
  /** The first of these. */
  readonly differences: readonly Difference[];
};

type Row = { readonly version: bigint; readonly deleted: boolean };

const pageSize = 1000;
const mostTold = 100;
const keepAlive = "5m";

/** The entities of documents. Somebody else may have put any id into the index. */
const entitiesOf = (documentIds: readonly string[]) =>
  documentIds.flatMap((id) => {
    const [, type, entityId] = /^([a-z]+):([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/.exec(id) ?? [];
    return type === undefined || entityId === undefined ? [] : [{ type, id: entityId }];
  });

async function rowsOf(db: Db, documentIds: readonly string[]): Promise<ReadonlyMap<string, Row>> {
  const entities = entitiesOf(documentIds);
  const types = array("text", [...new Set(entities.map(({ type }) => type))]);
  const ids = array(
    "uuid",
    entities.map(({ id }) => id),
  );
  const rows = await db.execute<{ id: string; version: string; deleted: boolean }>(sql`
    select entity_type || ':' || entity_id as id, event_version::text as version, deleted_at is not null as deleted
      from search_index where entity_type = any(${types}) and entity_id = any(${ids})`);
  return new Map(rows.map(({ id, version, deleted }) => [id, { version: BigInt(version), deleted }]));
}

/** Reads by id and not by search: so what was written is seen, whether the index has been refreshed or not. */
async function versionsOf(client: Client, index: string, ids: readonly string[]): Promise<ReadonlyMap<string, bigint>> {
  if (ids.length === 0) return new Map();
  const { docs } = await client.mget({ index, ids: [...ids], _source: false });
  return new Map(
    docs.flatMap((doc) => {
      if ("error" in doc) throw new Error(`Elasticsearch cannot read a document: ${doc.error.type}`);
      const { _id: id, _version: version } = doc;
      return doc.found && version !== undefined ? [[id, BigInt(version)] as const] : [];
    }),
  );
}

function difference(row: Row | undefined, version: bigint | undefined): Difference["what"] | null {
  if (row === undefined) return version === undefined ? null : "unknown";
  if (row.deleted) return version === undefined ? null : "deleted";
  if (version === undefined) return "missing";
  if (version === row.version) return null;
  return version < row.version ? "behind" : "ahead";
}

/** The ids of all documents that a search could find, as of now. */
async function* foundIn(client: Client, index: string): AsyncGenerator<readonly string[]> {
  // Who may not refresh sees what was written a second ago.
  await client.indices.refresh({ index }, { ignore: [403] });
  let { id: pit } = await client.openPointInTime({ index, keep_alive: keepAlive });
  try {
    for (let after: readonly (string | number)[] | undefined; ; ) {
      const page = await client.search({
        pit: { id: pit, keep_alive: keepAlive },
        size: pageSize,
        sort: [{ _shard_doc: "asc" }],
        _source: false,
        track_total_hits: false,
        ...(after === undefined ? {} : { search_after: [...after] }),
      });
      pit = page.pit_id ?? pit;
      const { hits } = page.hits;
      if (hits.length === 0) return;
      yield hits.flatMap(({ _id: id }) => id ?? []);
      after = hits.at(-1)?.sort as readonly (string | number)[];
    }
  } finally {
    await client.closePointInTime({ id: pit }).catch(() => undefined);
  }
}

/**
 * Holds the search index against Postgres, document by document and in both directions, while everything goes on: what differs at first sight is looked at again, and is told
 * only if its row has not changed meanwhile and no event is on the way that would mend it. Changes nothing. Throws what the client throws, and a CommandError when `signal` fires.
 */
export async function checkSearch(
  db: Db,
  client: Client,
  {
    index,
    signal,
    onProgress,
  }: { readonly index: string; readonly signal: AbortSignal; readonly onProgress: Progress },
): Promise<Checked> {
  const goOn = () => {
    if (signal.aborted) throw interrupted("nothing is known of the rest");
  };
  const total = await countRows(db, sql`search_index where deleted_at is null`);
  const suspects = new Set<string>();

  let documents = 0;
  for (let after: string | null = null; ; ) {
    type Page = { row_id: string; id: string; version: string; deleted: boolean };
    const page: Page[] = await db.execute<Page>(sql`
      select id::text as row_id, entity_type || ':' || entity_id as id, event_version::text as version, deleted_at is not null as deleted
        from search_index where ${past(after)} order by search_index.id limit ${pageSize}`);
    after = page.at(-1)?.row_id ?? null;
    if (after === null) break;
    const versions = await versionsOf(
      client,
      index,
      page.map(({ id }) => id),
    );
    for (const { id, version, deleted } of page) {
      if (!deleted) documents += 1;
      if (difference({ version: BigInt(version), deleted }, versions.get(id)) !== null) suspects.add(id);
    }
    onProgress(documents, Math.max(total, documents));
    goOn();
  }
  for await (const ids of foundIn(client, index)) {
    const rows = await rowsOf(db, ids);
    for (const id of ids) if (!rows.has(id)) suspects.add(id);
    goOn();
  }

  let waiting = 0;
  let wrong = 0;
  const differences: Difference[] = [];
  const all = [...suspects];
  for (let at = 0; at < all.length; at += pageSize) {
    const ids = all.slice(at, at + pageSize);
    const before = await rowsOf(db, ids);
    const unfinished = await unfinishedOf(db, queues.search, entitiesOf(ids));
    const versions = await versionsOf(client, index, ids);
    const now = await rowsOf(db, ids);
    for (const id of ids) {
      const what = difference(before.get(id), versions.get(id));
      if (what === null) continue;
      const because = unfinished.get(id) ?? null;
      if (because === "waiting" || before.get(id)?.version !== now.get(id)?.version) waiting += 1;
      else {
        wrong += 1;
        if (differences.length < mostTold) differences.push({ id, what, because });
      }
    }
    goOn();
  }
  return { documents, waiting, wrong, differences };
}

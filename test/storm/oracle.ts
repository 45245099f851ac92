import { sql } from "drizzle-orm";
import type { Scene } from "./scene.ts";

type EventRow = {
  id: string;
  status: string;
  result: string | null;
  attempts: number;
  reclaim_count: number;
  error_reason: string | null;
  retries: number;
  /** Who, when, why and from whom: how many of the four are written. */
  reclaim_fields: number;
};
type SourceRow = { entity_id: string; version: number; text: string; deleted: boolean };
type Document = {
  _id: string;
  found?: boolean;
  _version?: number;
  _source?: { text?: string; event_version?: number };
};

/** What is wrong with one row of a queue in which nothing waits any more. */
function faultOf(row: EventRow): string | null {
  if (row.status !== "done") return `is ${row.status} (${row.error_reason})`;
  if (row.reclaim_fields !== (row.reclaim_count === 0 ? 0 : 4))
    return "was reclaimed without saying who, when, why or from whom";
  // Each claim but the last was lost or ended in a retry; the last one sent the event, unless a newer event of its batch spoke for it.
  const last = row.attempts - row.reclaim_count - row.retries;
  const possible = row.result === "superseded" ? [0, 1] : [1];
  return possible.includes(last)
    ? null
    : `is ${row.result} with ${row.attempts} attempts, ${row.reclaim_count} reclaims and ${row.retries} retries`;
}

async function judgeRows({ db, appended }: Scene): Promise<string[]> {
  const rows = await db.execute<EventRow>(sql`
    select id::text, status, result, attempts, reclaim_count, error_reason,
           (select count(*) from storm_retries where event_id = id)::int as retries,
           num_nonnulls(last_reclaimed_by, last_reclaimed_at, last_reclaimed_reason, last_reclaimed_from) as reclaim_fields
      from search_outbox_events`);
  const faults = rows.flatMap((row) => {
    const fault = faultOf(row);
    return fault === null ? [] : [`event ${row.id} ${fault}`];
  });
  const ids = new Set(rows.map((row) => row.id)).size;
  if (rows.length !== ids) faults.push(`${rows.length - ids} events are in two states`);
  if (rows.length !== appended()) faults.push(`${rows.length} rows of ${appended()} events`);
  return faults;
}

async function judgeDocuments({ db, client, index }: Scene): Promise<string[]> {
  const rows = await db.execute<SourceRow>(sql`
    select e.entity_id::text, coalesce(s.event_version, 0)::int as version, coalesce(s.text, '') as text, s.entity_id is null or s.deleted_at is not null as deleted
      from (select entity_id from search_index union select entity_id from search_outbox_events) e left join search_index s using (entity_id)`);
  const faults: string[] = [];
  for (let from = 0; from < rows.length; from += 1000) {
    const part = rows.slice(from, from + 1000);
    const { docs } = await client.mget<{ text?: string; event_version?: number }>({
      index,
      ids: part.map((row) => `tag:${row.entity_id}`),
    });
    for (const [i, row] of part.entries()) {
      const { found = false, _version, _source } = docs[i] as Document;
      const name = `document ${row.entity_id}`;
      if (row.deleted && found) faults.push(`${name} came back, or never went`);
      if (row.deleted) continue;
      if (!found) faults.push(`${name} is missing`);
      else if (_version !== row.version || _source?.event_version !== row.version)
        faults.push(`${name} has version ${_version} (${_source?.event_version}), the row ${row.version}`);
      else if (_source.text !== row.text) faults.push(`${name} says "${_source.text}", the row "${row.text}"`);
    }
  }
  await client.indices.refresh({ index });
  const { count } = await client.count({ index });
  const living = rows.filter((row) => !row.deleted).length;
  if (count !== living) faults.push(`${count} documents of ${living} living rows`);
  return faults;
}

/** Why events were tried again, and how often. */
export async function readRetries({ db }: Scene): Promise<Record<string, number>> {
  const rows = await db.execute<{ reason: string; n: number }>(
    sql`select reason, count(*)::int as n from storm_retries group by reason order by reason`,
  );
  return Object.fromEntries(rows.map((row) => [row.reason, row.n]));
}

/**
 * Everything that is wrong once nothing waits: events that are lost, in two states, failed or held; attempts that are not sends; reclaims that are not told; and
 * documents that are not what search_index holds. Empty when all is well.
 */
export async function judge(scene: Scene): Promise<string[]> {
  const faults = [...(await judgeRows(scene)), ...(await judgeDocuments(scene))];
  return faults.length > 20 ? [...faults.slice(0, 20), `and ${faults.length - 20} more`] : faults;
}

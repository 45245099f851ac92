import { type SQL, sql } from "drizzle-orm";
import type { ClaimedEvent, Op, Subject } from "../events.ts";

/** A row that was just taken; `fresh`: from the lane of those that were never tried. */
export type Taken = ClaimedEvent & { readonly fresh: boolean };

/** A claimed row, from the fields that `asText` puts together. */
function toEvent(fields: readonly string[]): Taken {
  const [
    id = "",
    entityType,
    entityId = "",
    op,
    version = "",
    attempts,
    counted,
    traceparent = "",
    tracestate = "",
    fresh,
    age,
  ] = fields;
  return {
    id: BigInt(id),
    entityType: entityType as Subject,
    entityId,
    op: op as Op,
    eventVersion: BigInt(version),
    attempts: Number(attempts),
    countedAttempts: Number(counted),
    ageSeconds: Number(age),
    traceparent: traceparent === "" ? null : traceparent,
    tracestate: tracestate === "" ? null : tracestate,
    fresh: fresh === "t",
  };
}

const width = 11;
export type TextRows = { readonly rows: string | null; readonly count: number };
const ends = (mark: string) => [`\u001f${mark}`, `\u001e${mark}`] as const;

/** The rows of `leased` as one text: eleven columns of 500 rows cost the driver as much as Postgres needs to claim them. `mark` belongs to the ends of its fields and rows. */
export function asText(mark: string): SQL {
  const [fieldEnd, rowEnd] = ends(mark);
  return sql`string_agg(concat_ws(${fieldEnd}, id, entity_type, entity_id, op, event_version, attempts, counted_attempts, coalesce(traceparent, ''), coalesce(tracestate, ''),
                                  fresh, date_part('epoch', clock_timestamp() - created_at)), ${rowEnd} order by id) as rows, count(*)::int as count`;
}

/** Null where a row that was inserted by hand holds the ends of fields or rows: then there are more of them than there should be. */
export function fromText([answer]: readonly TextRows[], mark: string): Taken[] | null {
  const [fieldEnd, rowEnd] = ends(mark);
  const rows = answer?.rows?.split(rowEnd).map((row) => row.split(fieldEnd)) ?? [];
  return rows.length === (answer?.count ?? 0) && rows.every((fields) => fields.length === width)
    ? rows.map(toEvent)
    : null;
}

import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { array } from "../db/sql.ts";
import { live, type Queue } from "./queue.ts";

/** Why an entity's newest state may not have reached the target: an event waits for its turn, or the last of them has failed for good. */
type Unfinished = "waiting" | "failed";

/** Of these entities, those with events that are not done, as type:id. */
export async function unfinishedOf(
  db: Db,
  queue: Queue,
  entities: readonly { readonly id: string }[],
): Promise<ReadonlyMap<string, Unfinished>> {
  const ids = array(
    "uuid",
    entities.map(({ id }) => id),
  );
  const rows = await db.execute<{ entity: string; waiting: boolean }>(sql`
    select entity_type || ':' || entity_id as entity, bool_or(status <> 'failed') as waiting
      from ${live(queue)} where entity_id = any(${ids}) group by entity_type, entity_id`);
  return new Map(rows.map(({ entity, waiting }) => [entity, waiting ? "waiting" : "failed"]));
}

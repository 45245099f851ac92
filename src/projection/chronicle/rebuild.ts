import { sql } from "drizzle-orm";
import type { Db } from "../../db/client.ts";
import { queues } from "../../outbox/queue.ts";
import { countRows } from "../pages.ts";
import { interrupted, type Progress, rebuilding } from "../rebuild.ts";
import { eventIdsAfter, writeEntries } from "./entries.ts";

const pageRows = 1000;

/** Writes the entry of every chronicle event anew where it is missing or differs. Returns how many events there are and how many entries were written. */
export async function rebuildChronicle(
  db: Db,
  options: { readonly projectionVersion: number; readonly signal: AbortSignal; readonly onProgress: Progress },
): Promise<{ readonly events: number; readonly written: number }> {
  const { projectionVersion, signal, onProgress } = options;
  return await rebuilding(db, queues.chronicle, async (lock) => {
    const total = await countRows(db, sql`chronicle_events`);
    let [events, written] = [0, 0];
    for (let after: string | null = null; ; ) {
      const ids: readonly string[] = await eventIdsAfter(db, after, pageRows);
      after = ids.at(-1) ?? null;
      if (after === null) return { events, written };
      const entries = await writeEntries(db, ids, projectionVersion);
      events += ids.length;
      written += [...entries.values()].filter((kind) => kind === "written").length;
      onProgress(events, total);
      await lock.check();
      if (signal.aborted) throw interrupted("run it again for the rest");
    }
  });
}

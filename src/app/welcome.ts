import { sql } from "drizzle-orm";
import type { MarkdownSource } from "../library/folder.ts";
import { importMarkdown } from "../library/import.ts";
import type { WakeUps } from "../outbox/wake.ts";
import type { Store } from "./store.ts";
import { loadDocs } from "./welcome.macro.ts" with { type: "macro" };

const docs = new Map(loadDocs().map(({ path, text }) => [path, text]));

/** The documentation that this build carries. */
const source: MarkdownSource = {
  name: "docs",
  files: [...docs.keys()],
  unreadable: [],
  read: (file) => Promise.resolve({ text: docs.get(file) ?? "" }),
};

const name = "Welcome";

/** Whether nothing was ever written but, perhaps, a part of the documentation: an import that was cut short goes on. Counts what was deleted since. */
async function isFirstStart({ database }: Store): Promise<boolean> {
  const [row] = await database.db.execute<{ foreign: number; imported: number }>(sql`
    select (select count(*)::int from libraries where name <> ${name}) as foreign,
           (select count(distinct source_path)::int from books) as imported`);
  return row?.foreign === 0 && row.imported < docs.size;
}

/** Gives a database that never held a library one to try things with: the documentation. Returns whether it did. */
export async function welcome(store: Store, wakeUps: WakeUps, signal: AbortSignal): Promise<boolean> {
  if (!(await isFirstStart(store))) return false;
  const userId = store.settings.config.DEV_USER_ID;
  const report = await importMarkdown(store.database.db, source, {
    library: name,
    userId,
    committed: wakeUps.announce,
    signal,
  });
  return !report.interrupted;
}

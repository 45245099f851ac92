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

/** Gives a database that never held a library one to try things with: the documentation. Returns whether it did. */
export async function welcome({ settings, database }: Store, wakeUps: WakeUps, signal: AbortSignal): Promise<boolean> {
  const libraries = await database.db.execute(sql`select from libraries limit 1`);
  if (libraries.length > 0) return false;
  const options = { library: "Welcome", userId: settings.config.DEV_USER_ID, committed: wakeUps.announce, signal };
  await importMarkdown(database.db, source, options);
  return true;
}

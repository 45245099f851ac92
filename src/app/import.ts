import { openFolder } from "../library/folder.ts";
import { type ImportOptions, type ImportReport, importMarkdown } from "../library/import.ts";
import { openWakeUps } from "../outbox/wake.ts";
import { type Env, readSettings } from "./settings.ts";
import { openStore, reporting } from "./store.ts";

/** Reads a folder of Markdown into a library of the development user. */
export async function importFolder(
  env: Env,
  options: Omit<ImportOptions, "userId" | "committed"> & { folder: string },
): Promise<ImportReport> {
  await using resources = new AsyncDisposableStack();
  const settings = readSettings(env);
  const source = await openFolder(options.folder);
  const { database, address } = await openStore(settings, "required", "wordloom-import", resources);
  const wakeUps = openWakeUps(database);
  resources.defer(() => wakeUps.close());
  return await reporting(address, () =>
    importMarkdown(database.db, source, {
      ...options,
      userId: settings.config.DEV_USER_ID,
      committed: wakeUps.announce,
    }),
  );
}

import { readdirSync, readFileSync } from "node:fs";

/** Read while bundling (and at load time under `bun run`), so that the binary carries its migrations. */
export function loadMigrations(): { name: string; sql: string }[] {
  const folder = `${import.meta.dir}/../../drizzle`;
  return readdirSync(folder)
    .filter((file) => file.endsWith(".sql"))
    .toSorted()
    .map((file) => ({ name: file.slice(0, -".sql".length), sql: readFileSync(`${folder}/${file}`, "utf8") }));
}

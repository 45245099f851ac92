import { readdirSync, readFileSync } from "node:fs";

/** Read while bundling (and at load time under `bun run`), so that the binary carries its documentation. */
export function loadDocs(): { path: string; text: string }[] {
  const folder = `${import.meta.dir}/../../docs`;
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".md"))
    .toSorted()
    .map((path) => ({ path, text: readFileSync(`${folder}/${path}`, "utf8") }));
}

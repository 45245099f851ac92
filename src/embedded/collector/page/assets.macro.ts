import { readFileSync } from "node:fs";

/** Read while bundling (and at load time under `bun run`), so that the binary carries its pages. */
export function loadStyle(): string {
  return readFileSync(`${import.meta.dir}/style.css`, "utf8");
}

export function loadScript(): string {
  const source = readFileSync(`${import.meta.dir}/browser.ts`, "utf8");
  return new Bun.Transpiler({ loader: "ts", target: "browser" }).transformSync(source);
}

import { readVersion } from "./version.macro.ts" with { type: "macro" };

/** What this build is: the package's version, the commit it was made from (null outside of a repository) and the Bun it runs on. */
export const build: { readonly version: string; readonly commit: string | null; readonly bun: string } = {
  ...readVersion(),
  bun: Bun.version,
};

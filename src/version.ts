import packageJson from "../package.json" with { type: "json" };

/** Set by `tools/build.ts`. */
declare const WORDLOOM_VERSION: string | undefined;

/** Such as "0.1.0+1a2b3c4d5e6f" (release and commit), or "0.1.0+dev" when run from source. */
export const version: string =
  typeof WORDLOOM_VERSION === "undefined" ? `${packageJson.version}+dev` : WORDLOOM_VERSION;

/** The two parts of it. */
export const [release = version, commit = "dev"] = version.split("+");

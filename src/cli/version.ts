import { buildCommand } from "@stricli/core";
import { build } from "../version.ts";
import { type Context, jsonFlag, printJson } from "./context.ts";

/** `wordloom 0.1.0 (commit 0123456789ab, bun 1.4.5)` */
export const versionLine = `wordloom ${build.version} (${build.commit === null ? "" : `commit ${build.commit}, `}bun ${build.bun})`;

export const version = buildCommand({
  docs: { brief: "Print what this build is" },
  parameters: { flags: { json: jsonFlag } },
  func(this: Context, flags: { json?: boolean }) {
    if (flags.json) printJson(this, build);
    else this.process.stdout.write(`${versionLine}\n`);
  },
});

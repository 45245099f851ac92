import { buildCommand } from "@stricli/core";
import { commit, release } from "../version.ts";
import { type Context, printJson } from "./context.ts";
import { jsonFlag } from "./flags.ts";

export const version = buildCommand({
  docs: { brief: "Print version information: release, commit, Bun" },
  parameters: { flags: { json: jsonFlag } },
  func(this: Context, flags: { json?: boolean }) {
    if (flags.json) printJson(this, { version: release, commit, bun: Bun.version });
    else this.process.stdout.write(`wordloom ${release}, commit ${commit}, bun ${Bun.version}\n`);
  },
});

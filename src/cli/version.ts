import { buildCommand } from "@stricli/core";
import { version as stamped } from "../version.ts";
import { type Context, jsonFlag, printJson } from "./context.ts";

const [release = stamped, commit = "dev"] = stamped.split("+");

export const version = buildCommand({
  docs: { brief: "Print version information: release, commit, Bun" },
  parameters: { flags: { json: jsonFlag } },
  func(this: Context, flags: { json?: boolean }) {
    if (flags.json) printJson(this, { version: release, commit, bun: Bun.version });
    else this.process.stdout.write(`wordloom ${release}, commit ${commit}, bun ${Bun.version}\n`);
  },
});

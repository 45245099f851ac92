import { buildCommand } from "@stricli/core";
import type { CheckReport } from "../app/check.ts";
import { CommandError } from "../errors.ts";
import { type Context, printJson, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, jsonFlag } from "./flags.ts";
import { counted, progressBar } from "./progress.ts";

function summary({ documents, waiting, wrong, differences, index, seconds }: CheckReport): string {
  const found = wrong === 0 ? "no difference" : counted(wrong, "difference");
  const onTheWay = waiting === 0 ? "" : `, ${counted(waiting, "change")} on the way`;
  const lines = differences.map(({ id, what, because }) => `  ${id} ${what}${because === null ? "" : ` (${because})`}`);
  if (wrong > differences.length) lines.push(`  and ${wrong - differences.length} more`);
  const compared = `${counted(documents, "document")} compared with ${index} in ${seconds.toFixed(1)} s`;
  return [`${compared}: ${found}${onTheWay}`, ...lines].join("\n");
}

export const check = buildCommand({
  docs: {
    brief: "Compare the search index with Postgres, document by document",
    fullDescription: [
      "Examples:",
      "  wordloom check          what is missing, behind, ahead, or should not be there",
      "  wordloom check --json   for a script; at most 100 differences are listed",
      "",
      "Changes nothing, and nothing has to be stopped: a difference that an event in the queue will mend is counted as on the way. Exit code 10 when something else differs.",
      "A difference marked (failed) has an event that failed for good: fix its cause and `wordloom replay` it. `wordloom rebuild` mends the others.",
    ].join("\n"),
  },
  parameters: { flags: { envFile: envFileFlag, json: jsonFlag } },
  async func(this: Context, flags: EnvFileFlag & { json?: boolean }) {
    const app = await import("../app/check.ts");
    const bar = progressBar(this, "documents");
    const report = await app
      .check(readEnv(this, flags), { signal: this.signal, onProgress: bar.update })
      .finally(bar.stop);
    if (flags.json) printJson(this, report);
    else this.process.stdout.write(`${summary(report)}\n`);
    if (report.wrong > 0)
      throw new CommandError(
        "unproven",
        "the search index differs from Postgres; `wordloom replay` what has failed, `wordloom rebuild` for the rest",
      );
  },
});

import { buildCommand } from "@stricli/core";
import type { RebuildReport } from "../app/rebuild.ts";
import { CommandError } from "../errors.ts";
import { type Context, printJson, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, jsonFlag, toggle } from "./flags.ts";
import { counted, progressBar } from "./progress.ts";

type Flags = EnvFileFlag & {
  projection: "search" | "chronicle";
  emitOutbox?: boolean;
  truncate?: boolean;
  json?: boolean;
};

function summary(report: RebuildReport): string {
  const took = `in ${report.seconds.toFixed(1)} s`;
  switch (report.kind) {
    case "rebuilt": {
      const meanwhile = report.changed === 0 ? "" : `, ${counted(report.changed, "change")} made meanwhile included`;
      return `${counted(report.documents, "document")} ${took}${meanwhile}; searches now use ${report.index}`;
    }
    case "rewritten":
      return `${counted(report.events, "chronicle event")} ${took}, ${report.written} of the entries written`;
    case "emitted":
      return `${counted(report.events, "event")} of ${report.projection} queued (${took}); the workers do the rest`;
    default:
      return report satisfies never;
  }
}

const mostNamed = 20;

function refusals(refused: readonly { readonly id: string; readonly error: string }[]): string {
  const named = refused.slice(0, mostNamed).map(({ id, error }) => `  ${id} ${error}`);
  const more = refused.length > mostNamed ? [`  and ${refused.length - mostNamed} more`] : [];
  const what = `${counted(refused.length, "document")} refused by Elasticsearch; an event was queued for each, which fails with the reason`;
  return [what, ...named, ...more].join("\n");
}

export const rebuild = buildCommand({
  docs: {
    brief: "Rebuild the search index or the chronicle's entries from Postgres",
    fullDescription: [
      "Examples:",
      "  wordloom rebuild                          a new index, which takes the old one's place when it is complete",
      "  wordloom rebuild --emit-outbox            queue an event for each document instead; the workers write what the index lacks",
      "  wordloom rebuild --projection chronicle   the entries that are missing or differ",
      "",
      "For an Elasticsearch that is new, has lost its data, or holds documents it should not, as after Postgres is restored from a backup. Nothing has to be stopped: the old index is searched until the new one",
      "takes over in one step, including what was written meanwhile. If a rebuild is interrupted, the old index is untouched. With --emit-outbox, documents that are",
      "already in the index in their newest version are not rewritten, and documents that should not be there stay.",
    ].join("\n"),
  },
  parameters: {
    flags: {
      envFile: envFileFlag,
      projection: { kind: "enum", values: ["search", "chronicle"], default: "search", brief: "Which projection" },
      emitOutbox: toggle("Queue an event for each row and leave the rest to the workers"),
      truncate: toggle(
        "No effect; accepted for scripts that pass it: every write updates search_index, and a new index starts empty",
      ),
      json: jsonFlag,
    },
  },
  async func(this: Context, flags: Flags) {
    const app = await import("../app/rebuild.ts");
    const bar = progressBar(
      this,
      flags.emitOutbox ? "events" : flags.projection === "search" ? "documents" : "entries",
    );
    const report = await app
      .rebuild(readEnv(this, flags), flags.projection, {
        emitOutbox: flags.emitOutbox === true,
        signal: this.signal,
        onProgress: bar.update,
      })
      .finally(bar.stop);
    if (flags.json) printJson(this, report);
    else this.process.stdout.write(`${summary(report)}\n`);
    if (report.kind === "rebuilt" && report.refused.length > 0)
      throw new CommandError("failed", refusals(report.refused));
  },
});

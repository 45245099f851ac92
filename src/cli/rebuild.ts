import { buildCommand } from "@stricli/core";
import type { RebuildReport } from "../app/rebuild.ts";
import { CommandError } from "../errors.ts";
import { type Context, type EnvFileFlag, envFileFlag, jsonFlag, printJson, readEnv } from "./context.ts";
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
      return `${counted(report.documents, "document")} ${took}${meanwhile}; ${report.index} is searched from now on`;
    }
    case "rewritten":
      return `${counted(report.events, "chronicle event")} ${took}, ${report.written} of the entries written`;
    case "emitted":
      return `${counted(report.events, "event")} of ${report.projection} are in the queue (${took}); the workers do the rest`;
    default:
      return report satisfies never;
  }
}

const mostNamed = 20;

function refusals(refused: readonly { readonly id: string; readonly error: string }[]): string {
  const named = refused.slice(0, mostNamed).map(({ id, error }) => `  ${id} ${error}`);
  const more = refused.length > mostNamed ? [`  and ${refused.length - mostNamed} more`] : [];
  const what = `${counted(refused.length, "document")} refused by Elasticsearch; each has an event in the queue again, which fails with the reason`;
  return [what, ...named, ...more].join("\n");
}

export const rebuild = buildCommand({
  docs: {
    brief: "Make the search index, or the chronicle's entries, anew from Postgres",
    fullDescription: [
      "Examples:",
      "  wordloom rebuild                          a new index, which takes the old one's place when it is complete",
      "  wordloom rebuild --emit-outbox            an event for each document instead; the workers write what the index lacks",
      "  wordloom rebuild --projection chronicle   the entries that are missing or differ",
      "",
      "For an Elasticsearch that is new, was lost, or holds what it should not. Everything goes on meanwhile: the old index is searched until the new one takes over",
      "in one step, and what was written meanwhile is in it. Whatever stops a rebuild, the old index stays as it was. With --emit-outbox a document that the",
      "index has in its newest version stays as it is there, and what should not be there stays too.",
    ].join("\n"),
  },
  parameters: {
    flags: {
      envFile: envFileFlag,
      projection: { kind: "enum", values: ["search", "chronicle"], default: "search", brief: "Which projection" },
      emitOutbox: {
        kind: "boolean",
        optional: true,
        withNegated: false,
        brief: "Put an event for each row into the queue, and leave the rest to the workers",
      },
      truncate: {
        kind: "boolean",
        optional: true,
        withNegated: false,
        brief:
          "Has no effect; accepted for scripts that pass it: search_index is part of every write, and a new index is empty at first",
      },
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

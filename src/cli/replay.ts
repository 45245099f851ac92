import { buildCommand } from "@stricli/core";
import { type Context, printJson, readEnv } from "./context.ts";
import {
  type EnvFileFlag,
  envFileFlag,
  jsonFlag,
  optional,
  required,
  toggle,
  wholeNumber,
  withDefault,
} from "./flags.ts";
import { counted } from "./progress.ts";

type Flags = EnvFileFlag & {
  by: string;
  reason: string;
  limit: number;
  projection: "search" | "chronicle";
  entityType?: string;
  sinceHours?: number;
  id?: readonly bigint[];
  dryRun?: boolean;
  json?: boolean;
};

const text = (input: string): string => {
  if (input.trim() === "" || input.length > 120) throw new Error("expected 1 to 120 characters");
  return input.trim();
};

const hours = (input: string): number => {
  const n = /^\d+(\.\d+)?$/.test(input) ? Number(input) : 0;
  if (n <= 0) throw new Error("expected a number of hours above 0");
  return n;
};

const id = (input: string): bigint => {
  if (!/^\d{1,18}$/.test(input)) throw new Error("expected the numeric id of an event");
  return BigInt(input);
};

export const replay = buildCommand({
  docs: {
    brief: "Put failed events back into their queue, recording who and why",
    fullDescription: [
      "Examples:",
      '  wordloom replay --by ops --reason "mapping fixed" --limit 100 --dry-run   list the events only',
      '  wordloom replay --by ops --reason "mapping fixed" --limit 100',
      "  wordloom replay --by ops --reason retest --projection chronicle --id 4711 --id 4712",
      "",
      "A failed event never comes back by itself. Each replayed event leaves a row in outbox_replays: who, when, why, and why it had failed.",
      "Matching events are replayed oldest first, at most --limit of them.",
    ].join("\n"),
  },
  parameters: {
    flags: {
      envFile: envFileFlag,
      by: required(text, "who", "Who is replaying; recorded permanently"),
      reason: required(text, "why", "Why it will succeed now; recorded permanently"),
      limit: withDefault(wholeNumber(1, 9_999_999), "1000", "n", "Maximum number of events"),
      projection: { kind: "enum", values: ["search", "chronicle"], default: "search", brief: "Which queue" },
      entityType: optional(text, "type", "Only events of this entity type"),
      sinceHours: optional(hours, "hours", "Only events that failed within the last n hours"),
      id: { ...optional(id, "event", "Only these events"), variadic: true },
      dryRun: toggle("List the events and change nothing"),
      json: jsonFlag,
    },
  },
  async func(this: Context, flags: Flags) {
    const { replayFailed } = await import("../app/replay.ts");
    const request = {
      by: flags.by,
      reason: flags.reason,
      limit: flags.limit,
      entityType: flags.entityType,
      sinceHours: flags.sinceHours,
      ids: flags.id,
    };
    const report = await replayFailed(readEnv(this, flags), flags.projection, request, flags.dryRun === true);
    if (flags.json) {
      printJson(this, report);
      return;
    }
    const many = report.replayed.length;
    const events = `${counted(many, "failed event")} of ${report.projection}`;
    const line = report.dry_run
      ? `${events} would be replayed${many === 0 ? "" : `: ${report.replayed.join(" ")}`}`
      : `${events} put back into the queue`;
    this.process.stdout.write(`${line}\n`);
  },
});

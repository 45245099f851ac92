import { buildCommand } from "@stricli/core";
import { type Context, type EnvFileFlag, envFileFlag, jsonFlag, printJson, readEnv } from "./context.ts";

type Flags = EnvFileFlag & { dryRun?: boolean; json?: boolean };

export const migrate = buildCommand({
  docs: {
    brief: "Bring the database's tables up to this build",
    fullDescription: [
      "Examples:",
      "  wordloom migrate                         the embedded database",
      "  DATABASE_URL=postgresql://u:p@db/wordloom_prod WORDLOOM_ENV=prod wordloom migrate",
      "  wordloom migrate --dry-run               only name what is missing",
      "",
      "All that is missing is applied in one transaction: it is there as a whole or not at all. Of many that start at once, one migrates and the rest wait.",
    ].join("\n"),
  },
  parameters: {
    flags: {
      envFile: envFileFlag,
      dryRun: { kind: "boolean", optional: true, withNegated: false, brief: "Name what is missing and change nothing" },
      json: jsonFlag,
    },
  },
  async func(this: Context, flags: Flags) {
    const { migrateDatabase } = await import("../app/migrate.ts");
    const { applied, pending, where } = await migrateDatabase(readEnv(this, flags), { dryRun: flags.dryRun === true });
    if (flags.json) {
      printJson(this, { applied, pending });
      return;
    }
    const lines = [
      ...applied.map((name) => `applied ${name}`),
      ...pending.map((name) => `pending ${name}`),
      applied.length + pending.length === 0 ? `${where} is up to date` : where,
    ];
    this.process.stdout.write(`${lines.join("\n")}\n`);
  },
});

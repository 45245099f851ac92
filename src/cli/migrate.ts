import { buildCommand } from "@stricli/core";
import { type Context, printJson, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, jsonFlag, toggle } from "./flags.ts";

type Flags = EnvFileFlag & { dryRun?: boolean; json?: boolean };

export const migrate = buildCommand({
  docs: {
    brief: "Apply the migrations that this build needs",
    fullDescription: [
      "Examples:",
      "  wordloom migrate                         the embedded database",
      "  DATABASE_URL=postgresql://u:p@db/wordloom_prod WORDLOOM_ENV=prod wordloom migrate",
      "  wordloom migrate --dry-run               only list what is missing",
      "",
      "All missing migrations are applied in one transaction, all or nothing. When several processes start at once, one migrates and the others wait.",
    ].join("\n"),
  },
  parameters: {
    flags: {
      envFile: envFileFlag,
      dryRun: toggle("List what is missing and change nothing"),
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

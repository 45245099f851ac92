import { buildCommand, buildRouteMap } from "@stricli/core";
import { CommandError } from "../errors.ts";
import type { Check } from "../labs/drill.ts";
import type { DrillName } from "../labs/menu.ts";
import { type Context, printJson, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, jsonFlag, optional, toggle, wholeNumber } from "./flags.ts";
import { exportJaeger, exportRun } from "./labs-export.ts";
import { outdir, runId, scenario } from "./labs-flags.ts";
import { run } from "./labs-run.ts";
import { counted } from "./progress.ts";

const lineOf = ({ ok, name, expected, observed }: Check): string =>
  ok ? `  ok    ${name}` : `  FAIL  ${name}: expected ${expected}, found ${JSON.stringify(observed)}`;

const verify = buildCommand({
  docs: {
    brief: "Check a drill's evidence against what it promises",
    fullDescription: [
      "Examples:",
      "  wordloom labs verify all",
      "  wordloom labs verify stuck_reclaim --run-id 20261123T142501 --json",
      "",
      "Reads the folder of the run and nothing else: metrics, rows, log lines and traces, and whether they were changed since the run. The result is saved as",
      "_result.json. Exit code 10 when a check fails.",
    ].join("\n"),
  },
  parameters: { positional: scenario, flags: { outdir, runId, json: jsonFlag } },
  async func(this: Context, flags: { outdir: string; runId?: string; json?: boolean }, chosen: readonly DrillName[]) {
    const { verifyLabs } = await import("../app/labs.ts");
    const verified = verifyLabs(chosen, flags.outdir, flags.runId);
    const results = verified.map(({ result }) => result);
    for (const { result, kept } of verified)
      if (!kept)
        this.process.stderr.write(`wordloom: ${result.run_dir} cannot be written; _result.json is not saved\n`);
    if (flags.json) printJson(this, results);
    else
      for (const { scenario: name, run_dir, ok, checks } of results)
        this.process.stdout.write(`${ok ? "ok  " : "FAIL"} ${name} ${run_dir}\n${checks.map(lineOf).join("\n")}\n`);
    const bad = results.filter(({ ok }) => !ok).map(({ scenario: name }) => name);
    if (bad.length > 0) throw new CommandError("unproven", `the evidence of ${bad.join(", ")} failed verification`);
  },
});

const clean = buildCommand({
  docs: {
    brief: "Clean up what a drill may have left behind",
    fullDescription: [
      "Examples:",
      "  wordloom labs clean all --keep-last 10   keep the ten newest runs of each drill",
      "  wordloom labs clean es_write_block_4xx   unblock writes to the index of ELASTIC_URL",
      "  wordloom labs clean all --data           also the labs' own Postgres, search engine and traces",
    ].join("\n"),
  },
  parameters: {
    positional: scenario,
    flags: {
      envFile: envFileFlag,
      outdir,
      keepLast: optional(wholeNumber(0, 100_000), "n", "How many of the newest runs of each drill to keep"),
      data: toggle("Also remove the labs' data below WORDLOOM_DATA_DIR"),
    },
  },
  async func(
    this: Context,
    flags: EnvFileFlag & { outdir: string; keepLast?: number; data?: boolean },
    chosen: readonly DrillName[],
  ) {
    const { cleanLabs } = await import("../app/labs.ts");
    const { keepLast, data = false } = flags;
    const gone = await cleanLabs(readEnv(this, flags), chosen, { outdir: flags.outdir, keepLast, data });
    this.process.stdout.write(
      `${counted(gone.length, "run")} removed${data ? ", and the data of the labs' own servers" : ""}\n`,
    );
  },
});

const routes = { run, verify, export: exportRun, "export-jaeger": exportJaeger, clean };

export const labsCommands: readonly string[] = Object.keys(routes);

export const labs = buildRouteMap({
  routes,
  docs: {
    brief: "Break things on purpose, and prove what happened",
    fullDescription: [
      "The failure drills of the operator documents (Lab-S3A/2A/3A): real processes are broken from outside, and metrics, rows, logs and traces are kept as evidence.",
      "",
      "Examples:",
      "  wordloom labs run all && wordloom labs verify all",
      "  wordloom labs run --help                 the list of drills",
    ].join("\n"),
  },
});

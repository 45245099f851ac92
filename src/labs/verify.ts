import { basename } from "node:path";
import { type Check, type Drill, holds, openEvidence } from "./drill.ts";
import { tampered, writeResult } from "./evidence.ts";

export type Result = {
  readonly ok: boolean;
  readonly scenario: string;
  readonly run_id: string;
  readonly run_dir: string;
  readonly checks: readonly Check[];
  /** The names of those that do not hold. */
  readonly why: readonly string[];
};

const sealed = (ok: boolean, observed: unknown): Check =>
  holds("the evidence is as the run left it", "every file as _manifest.json has it", ok, observed);

/**
 * Holds a run's evidence to what its drill promises, and keeps the result beside it as `_result.json` where it can (`kept`). Needs nothing but the folder. Of a run that did not
 * end there is nothing else to be said.
 */
export function verifyRun(drill: Drill, dir: string): { readonly result: Result; readonly kept: boolean } {
  const changed = tampered(dir);
  const checks =
    changed === undefined
      ? [sealed(false, "no _manifest.json that can be read: the run did not end")]
      : [sealed(changed.length === 0, changed), ...drill.checks(openEvidence(dir))];
  const why = checks.filter(({ ok }) => !ok).map(({ name }) => name);
  const result = { ok: why.length === 0, scenario: drill.name, run_id: basename(dir), run_dir: dir, checks, why };
  return { result, kept: writeResult(dir, result) };
}

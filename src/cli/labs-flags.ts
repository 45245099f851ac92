import { type DrillName, defaultOutdir, drillNames } from "../labs/menu.ts";
import { optional, withDefault } from "./flags.ts";

/** What the commands of `labs` share. */

/** A drill's name, or `all`. Throws for anything else. */
function parseScenario(input: string): readonly DrillName[] {
  const chosen = input === "all" ? drillNames : drillNames.filter((name) => name === input);
  if (chosen.length === 0) throw new Error(`expected one of ${drillNames.join(", ")}, or all`);
  return chosen;
}

/** A folder's name. Throws for anything that leads elsewhere. */
export function parseRunId(input: string): string {
  if (!/^[\w-][\w.-]{0,63}$/.test(input))
    throw new Error("expected up to 64 letters, digits, dashes, underscores and dots, and no leading dot");
  return input;
}

function parseUrl(input: string): string {
  if (!URL.canParse(input) || !/^https?:/.test(input))
    throw new Error("expected a URL, such as http://127.0.0.1:16686");
  return input;
}

export const scenario = {
  kind: "tuple",
  parameters: [{ parse: parseScenario, placeholder: "scenario", brief: "A drill's name, or all" }],
} as const;
export const outdir = withDefault(String, defaultOutdir, "folder", "Where evidence is kept");
export const runId = optional(parseRunId, "name", "Instead of the newest run");
export const jaeger = optional(
  parseUrl,
  "url",
  "Query API of your own Jaeger, when OTEL_EXPORTER_OTLP_ENDPOINT points to one; default: http://127.0.0.1:16686",
);

/** `20261123T142501`, in local time, as the operator documents name runs. */
export function timeName(now: Date): string {
  const two = (n: number) => String(n).padStart(2, "0");
  const date = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  return `${date}T${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
}

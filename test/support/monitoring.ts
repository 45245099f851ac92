import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";

/** What stands beside the code for people who watch it: read once, as data. */

const root = join(import.meta.dir, "../..");
export const prometheusFolder = join(root, "docker/prometheus");
const runbookFolder = join(root, "docs/runbooks");

export const read = (path: string): string => readFileSync(join(root, path), "utf8");

export type Panel = {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly datasource?: { readonly uid: string };
  readonly targets?: readonly { readonly expr: string; readonly exemplar?: boolean; readonly legendFormat: string }[];
  readonly fieldConfig?: {
    readonly defaults: {
      readonly unit: string;
      readonly thresholds: { readonly steps: readonly { readonly value: number | null; readonly color: string }[] };
    };
  };
};

type Dashboard = {
  readonly id?: unknown;
  readonly uid: string;
  readonly title: string;
  readonly refresh: string;
  readonly time: { readonly from: string };
  readonly panels: readonly Panel[];
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly query: { readonly query: string } }[];
  };
};

export const dashboard = JSON.parse(read("docker/grafana/dashboards/wordloom-outbox-bulk.json")) as Dashboard;

/** The panels that show something: rows left out. */
export const panels = dashboard.panels.filter((panel) => panel.type !== "row");

export type Rule = {
  readonly record?: string;
  readonly alert?: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
};

const ruleFiles = ["alerts.yml", "recording.yml"] as const;
export const rules: readonly Rule[] = ruleFiles.flatMap((file) =>
  (Bun.YAML.parse(read(`docker/prometheus/rules/${file}`)) as { groups: { rules: Rule[] }[] }).groups.flatMap(
    (group) => group.rules,
  ),
);
export const alerts = rules.filter((rule): rule is Rule & { alert: string } => rule.alert !== undefined);
export const recorded = rules.filter((rule): rule is Rule & { record: string } => rule.record !== undefined);

/** The runbooks by the name of their alert. */
export const runbooks: ReadonlyMap<string, string> = new Map(
  readdirSync(runbookFolder)
    .filter((file) => file.endsWith(".md") && file !== "README.md")
    .map((file) => [basename(file, ".md"), readFileSync(join(runbookFolder, file), "utf8")]),
);

/** The fenced blocks of one language, of every runbook. */
export function blocks(language: string): { readonly alert: string; readonly text: string }[] {
  return [...runbooks].flatMap(([alert, page]) =>
    [...page.matchAll(new RegExp(`^ *\`\`\`${language}\\n([\\s\\S]*?)^ *\`\`\``, "gm"))].map(([, text = ""]) => ({
      alert,
      text: text.trim(),
    })),
  );
}

/** Look like metrics and are not: a column, a table. */
const otherNames = ["outbox_event_id", "outbox_replays"];

/** The names of metrics in a text: no labels, no recorded names, histograms by their own name. */
export function metricsNamedIn(text: string): string[] {
  const names = text
    .replaceAll(/[a-z_]+:[a-z0-9_]+:[a-z0-9_]+/g, "")
    .match(/\b(outbox_|http_request_|db_client_|projection_|wordloom_|nodejs_|process_(?!batch))[a-z0-9_]+\b/g);
  return [...new Set((names ?? []).map((name) => name.replace(/_(bucket|count|sum)$/, "")))].filter(
    (name) => !otherNames.includes(name),
  );
}

/** The query with every variable of the dashboard set to All. */
export const withAll = (expr: string): string => expr.replaceAll(/\$(env|projection)\b/g, ".*");

import { illegalArgument, Refusal } from "./errors.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import { show } from "./mapping.ts";

/** Settings by full name (`index.gc_deletes`), values as text, as Elasticsearch shows them. */
export type Settings = ReadonlyMap<string, string>;

type Kind = "time" | "boolean" | "count" | "replicas";

const known: Record<string, { kind: Kind; least?: number; dynamic: boolean }> = {
  "index.number_of_shards": { kind: "count", least: 1, dynamic: false },
  "index.number_of_replicas": { kind: "count", least: 0, dynamic: true },
  // One node holds no replicas, whatever the range.
  "index.auto_expand_replicas": { kind: "replicas", dynamic: true },
  "index.max_result_window": { kind: "count", least: 1, dynamic: true },
  "index.refresh_interval": { kind: "time", dynamic: true },
  "index.gc_deletes": { kind: "time", dynamic: true },
  "index.blocks.read": { kind: "boolean", dynamic: true },
  "index.blocks.write": { kind: "boolean", dynamic: true },
  "index.blocks.metadata": { kind: "boolean", dynamic: true },
  "index.blocks.read_only": { kind: "boolean", dynamic: true },
  "index.blocks.read_only_allow_delete": { kind: "boolean", dynamic: true },
};

const units: Record<string, number> = { nanos: 1e-6, micros: 1e-3, ms: 1, s: 1e3, m: 6e4, h: 36e5, d: 864e5 };

/** Settings in any of the accepted forms (nested, dotted, with or without `index.`), flat. Null means: back to the default. */
export function flattenSettings(settings: JsonObject): Map<string, string | null> {
  const flat = new Map<string, string | null>();
  const visit = (prefix: string, value: Json) => {
    if (isObject(value)) {
      for (const [key, member] of Object.entries(value)) visit(prefix === "" ? key : `${prefix}.${key}`, member);
    } else {
      flat.set(prefix.startsWith("index.") ? prefix : `index.${prefix}`, value === null ? null : show(value));
    }
  };
  visit("", settings);
  return flat;
}

/** Checks names and values. Throws what Elasticsearch answers to a wrong one. */
export function checkSettings(settings: ReadonlyMap<string, string | null>): void {
  for (const [name, value] of settings) {
    const setting = known[name];
    if (setting === undefined) {
      throw illegalArgument(
        `unknown setting [${name}] please check that any required plugins are installed, or check the breaking changes documentation for removed settings`,
      );
    }
    if (value === null) continue;
    if (setting.kind === "time") parseTime(name, value);
    if (setting.kind === "boolean" && value !== "true" && value !== "false") {
      throw illegalArgument(`Failed to parse value [${value}] as only [true] or [false] are allowed.`);
    }
    if (setting.kind === "replicas" && !/^(false|\d+-(\d+|all))$/.test(value)) {
      throw illegalArgument(`failed to parse [${name}] from value: [${value}] at index ${value.indexOf("-")}`);
    }
    if (setting.kind === "count") checkCount(name, value, setting.least ?? 0);
  }
}

/** Refuses a change of what is fixed when an index is made. */
export function checkDynamic(
  settings: ReadonlyMap<string, string | null>,
  index: { name: string; uuid: string },
): void {
  const fixed = [...settings.keys()].filter((name) => known[name]?.dynamic === false);
  if (fixed.length > 0) {
    throw illegalArgument(
      `Can't update non dynamic settings [[${fixed.join(", ")}]] for open indices [[${index.name}/${index.uuid}]] unless the \`reopen\` query parameter is set to true. Alternatively, close the indices, apply the settings changes, and reopen the indices`,
    );
  }
}

/** Milliseconds of a time value such as `24h`. */
export function parseTime(name: string, value: string): number {
  const [, amount, unit = ""] = /^(-?\d+(?:\.\d+)?)(nanos|micros|ms|s|m|h|d)?$/.exec(value.trim().toLowerCase()) ?? [];
  const milliseconds = units[unit];
  if (amount !== undefined && milliseconds !== undefined) return Number(amount) * milliseconds;
  if (Number(amount) <= 0) return Number(amount);
  throw illegalArgument(
    `failed to parse setting [${name}] with value [${value}] as a time value: unit is missing or unrecognized`,
  );
}

function isTrue(settings: Settings, name: string): boolean {
  return settings.get(name) === "true";
}

/** How long a deletion is remembered, in milliseconds. */
export function gcDeletesMs(settings: Settings): number {
  return parseTime("index.gc_deletes", settings.get("index.gc_deletes") ?? "60s");
}

const blocks = {
  readOnly: { id: 5, status: 403, words: "index read-only (api)", setting: "index.blocks.read_only" },
  read: { id: 7, status: 403, words: "index read (api)", setting: "index.blocks.read" },
  write: { id: 8, status: 403, words: "index write (api)", setting: "index.blocks.write" },
  metadata: { id: 9, status: 403, words: "index metadata (api)", setting: "index.blocks.metadata" },
  flood: {
    id: 12,
    status: 429,
    words:
      "disk usage exceeded flood-stage watermark, index has read-only-allow-delete block; for more information, see https://www.elastic.co/docs/troubleshoot/elasticsearch/fix-watermark-errors?version=9.2",
    setting: "index.blocks.read_only_allow_delete",
  },
} as const;

const blockedBy = {
  read: [blocks.read],
  write: [blocks.readOnly, blocks.write, blocks.flood],
  alias: [blocks.readOnly, blocks.metadata],
  delete: [blocks.readOnly, blocks.metadata],
} as const;

/** The refusal that a block of this index gives to that kind of access, if there is one. */
export function blockOf(
  index: { name: string; settings: Settings },
  access: keyof typeof blockedBy,
): Refusal | undefined {
  const hit = blockedBy[access].filter(({ setting }) => isTrue(index.settings, setting));
  const [first] = hit;
  if (first === undefined) return undefined;
  const reasons = hit.map(
    ({ status, id, words }) => `[${status === 429 ? "TOO_MANY_REQUESTS" : "FORBIDDEN"}/${id}/${words}];`,
  );
  const status = hit.some((block) => block.status === 403) ? 403 : 429;
  return new Refusal(status, "cluster_block_exception", `index [${index.name}] blocked by: ${reasons.join("")}`);
}

function checkCount(name: string, value: string, least: number): void {
  if (!/^-?\d+$/.test(value)) {
    throw illegalArgument(`Failed to parse value [${value}] for setting [${name}]`, {
      type: "number_format_exception",
      reason: `For input string: "${value}"`,
    });
  }
  if (Number(value) < least) {
    throw illegalArgument(`Failed to parse value [${value}] for setting [${name}] must be >= ${least}`);
  }
}

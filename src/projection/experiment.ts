import type { Config } from "../config.ts";
import { CommandError } from "../errors.ts";
import type { Op } from "../events.ts";
import { type BulkItem, bulkBody, type ItemResult } from "../search/bulk.ts";
import { experiments } from "../telemetry/keys.ts";

/** Sends a request of these items and returns one result per item, in order. */
type Send = (items: readonly BulkItem[], body: string) => Promise<ItemResult[]>;

/** The failures that the labs inject from inside, as switched on by OUTBOX_EXPERIMENT_*. Everything here is off by default. */
export type BulkExperiment = {
  /** Sends the items but for those that it refuses in the engine's place, and may rewrite what the engine answers: such results say so in `labs`. */
  readonly inject: (items: readonly BulkItem[], body: string, send: Send) => Promise<ItemResult[]>;
  /** On every span while an experiment is on; null while none is. */
  readonly attributes: Attributes | null;
  /** What start-up says aloud. */
  readonly announcements: readonly { readonly message: string; readonly fields: Attributes }[];
};

type Attributes = Readonly<Record<string, string | number | boolean>>;

/** Mulberry32: small, seeded, good enough for dice. */
function dice(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const injected = (status: number, what: string, labs: Attributes): ItemResult => ({
  kind: "answered",
  status,
  errorType: "injected",
  detail: `Injected ${what} (fault injection)`,
  storedVersion: null,
  failedShards: 0,
  labs,
});

/** The names of all switches that are on. */
function switchesOn(config: Config): string[] {
  const on: [string, boolean][] = [
    ["OUTBOX_EXPERIMENT_ES_429_RATIO", config.OUTBOX_EXPERIMENT_ES_429_RATIO > 0],
    ["OUTBOX_EXPERIMENT_ES_429_EVERY_N", config.OUTBOX_EXPERIMENT_ES_429_EVERY_N > 0],
    ["OUTBOX_EXPERIMENT_ES_BULK_PARTIAL", config.OUTBOX_EXPERIMENT_ES_BULK_PARTIAL],
    ["OUTBOX_EXPERIMENT_BREAK_CLAIM", config.OUTBOX_EXPERIMENT_BREAK_CLAIM],
    ["OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS", config.OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS > 0],
    ["OUTBOX_FAULT_INJECT_KIND", config.OUTBOX_FAULT_INJECT_KIND !== undefined],
  ];
  return on.flatMap(([name, is]) => (is ? [name] : []));
}

/** Refuses experiments outside of dev and test. Throws a CommandError (exit 5) that names the switches. */
export function checkExperiments(config: Config, environment: string): void {
  const on = switchesOn(config);
  if (on.length > 0 && environment !== "dev" && environment !== "test")
    throw new CommandError(
      "refused",
      `${on.join(", ")} ${on.length === 1 ? "breaks" : "break"} things on purpose, and WORDLOOM_ENV is ${environment}; unset ${on.length === 1 ? "it" : "them"}, or use a dev or test environment`,
    );
}

/** The bulk experiments of a configuration. */
export function bulkExperiment(config: Config): BulkExperiment {
  const everyN = config.OUTBOX_EXPERIMENT_ES_429_EVERY_N;
  const ratio = config.OUTBOX_EXPERIMENT_ES_429_RATIO;
  const mode = everyN > 0 ? "every_n" : ratio > 0 ? "ratio" : null;
  const ops = config.OUTBOX_EXPERIMENT_ES_429_OPS;
  const hits = (op: Op) => ops === "all" || ops.split(",").includes(op);
  const roll = dice(config.OUTBOX_EXPERIMENT_ES_429_SEED);
  const effective = mode === "every_n" ? 1 / everyN : ratio;
  const p = experiments.es429;
  const attributes429: Attributes =
    mode === null
      ? {}
      : {
          [`${p}.mode`]: mode,
          [`${p}.ratio`]: ratio,
          [`${p}.every_n`]: everyN,
          [`${p}.ops`]: ops,
          [`${p}.seed`]: config.OUTBOX_EXPERIMENT_ES_429_SEED,
        };
  const partial = config.OUTBOX_EXPERIMENT_ES_BULK_PARTIAL;
  const status = config.OUTBOX_EXPERIMENT_ES_BULK_PARTIAL_STATUS;
  let counter = 0;
  const attributes = {
    ...attributes429,
    ...(partial ? { [`${experiments.bulkPartial}.status`]: status } : {}),
  };
  const partialFailure = injected(status, "partial failure", { [`${experiments.bulkPartial}.injected`]: true });
  const refuse = (item: BulkItem): ItemResult | null => {
    const op = item.op === "index" ? "upsert" : "delete";
    if (mode === null || !hits(op)) return null;
    counter += 1;
    const hit = mode === "every_n" ? counter % everyN === 0 : roll() < ratio;
    if (!hit) return null;
    return injected(429, "429", { [`${p}.injected`]: true, [`${p}.op`]: op, [`${p}.counter`]: counter });
  };
  return {
    inject: async (items, body, send) => {
      const refused = items.map(refuse);
      const through = items.filter((_, i) => refused[i] === null);
      const whole = through.length === items.length;
      const answers = through.length === 0 ? [] : await send(through, whole ? body : bulkBody(through));
      // A request that failed as a whole must still be bisected or waited for.
      if (partial && answers.length > 1 && answers[0]?.kind === "answered") answers[0] = partialFailure;
      const next = answers.values();
      return refused.map((result) => result ?? next.next().value ?? { kind: "unanswered" });
    },
    attributes: Object.keys(attributes).length === 0 ? null : attributes,
    announcements: [
      ...(mode === null
        ? []
        : [
            {
              message: `ES 429 fault injection enabled: mode=${mode} effective_ratio=${effective.toFixed(3)} ratio=${ratio} every_n=${everyN} ops=${ops} seed=${config.OUTBOX_EXPERIMENT_ES_429_SEED}`,
              fields: { mode, effective_ratio: effective },
            },
          ]),
      ...(partial
        ? [{ message: `ES bulk partial failure injection enabled: status=${status}`, fields: { status } }]
        : []),
    ],
  };
}

/** What start-up says aloud of OUTBOX_FAULT_INJECT_*. */
export function faultAnnouncements({
  OUTBOX_FAULT_INJECT_KIND: kind,
  OUTBOX_FAULT_INJECT_ENTITY_ID: entityId,
}: Config): BulkExperiment["announcements"] {
  if (kind === undefined) return [];
  if (entityId === undefined)
    return [
      {
        message: `Fault injection without effect: set OUTBOX_FAULT_INJECT_ENTITY_ID for kind=${kind}`,
        fields: { kind },
      },
    ];
  return [{ message: `Fault injection enabled: kind=${kind}`, fields: { kind } }];
}

import type { Client } from "@elastic/elasticsearch";
import { sql } from "drizzle-orm";
import { type Config, readConfig } from "../../src/config.ts";
import type { Db } from "../../src/db/client.ts";
import type { Lease, Op } from "../../src/events.ts";
import { openClaim } from "../../src/outbox/claim.ts";
import { queues } from "../../src/outbox/queue.ts";
import { processBatch } from "../../src/projection/batch.ts";
import { bulkExperiment } from "../../src/projection/experiment.ts";
import { createPace } from "../../src/projection/pace.ts";
import type { Projection } from "../../src/projection/projection.ts";
import { type SearchProjectionOptions, searchProjection } from "../../src/projection/search/project.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { type Metrics, openMetrics } from "../../src/telemetry/metrics.ts";
import { openTracing } from "../../src/telemetry/tracing.ts";
import { type WorkerSignals, workerSignals } from "../../src/telemetry/worker-signals.ts";

/** Signals of a worker under test, and what they told. */
export type Recorded = {
  readonly signals: WorkerSignals;
  /** The log lines that hold `text`, oldest first. */
  readonly told: (text: string) => Record<string, unknown>[];
  /** Forgets all lines. */
  readonly forget: () => void;
  /** What the counters rose by since the last call, without those that did not: `name{label=value,…}` → by how much. */
  readonly counted: () => Record<string, number>;
  /** The last value of a gauge. */
  readonly gauge: (name: string) => number | undefined;
};

/** Real signals into the real registry (which refuses a label that is not declared), and a record of them. */
export function recordSignals(environment: Readonly<Record<string, string>> = {}): Recorded {
  const config = readConfig(environment);
  const real = openMetrics("worker");
  const sums = new Map<string, number>();
  const gauges = new Map<string, number>();
  const record = (name: string, labels: Readonly<Record<string, string>>, count: number) => {
    const { projection: _, ...rest } = labels;
    const key = `${name}{${Object.entries(rest)
      .map(([k, v]) => `${k}=${v}`)
      .join(",")}}`;
    sums.set(key, (sums.get(key) ?? 0) + count);
  };
  const metrics: Metrics = {
    ...real,
    add: (name, labels, count = 1) => {
      real.add(name, labels, count);
      record(name, labels, count);
    },
    tally: () => {
      const tally = real.tally();
      const counts: (() => void)[] = [];
      return {
        ...tally,
        add: (name, labels) => {
          tally.add(name, labels);
          counts.push(() => record(name, labels, 1));
        },
        flush: () => {
          tally.flush();
          for (const count of counts) count();
        },
      };
    },
    set: (name, labels, value) => {
      real.set(name, labels, value);
      gauges.set(name, value);
    },
  };
  const lines: string[] = [];
  const log = openLog(config, "test", { write: (line) => lines.push(line) });
  const tracing = openTracing(config, "search", "test", () => undefined);
  const signals = workerSignals(
    { log, metrics, tracing },
    { projection: "search", workerId: "w1", esIndex: "scripted", projectionVersion: 1 },
  );
  return {
    signals,
    told: (text) =>
      lines.filter((line) => line.includes(text)).map((line) => JSON.parse(line) as Record<string, unknown>),
    forget: () => {
      lines.length = 0;
    },
    counted: () => {
      const delta = Object.fromEntries(Array.from(sums).filter(([, n]) => n !== 0));
      sums.clear();
      return delta;
    },
    gauge: (name) => gauges.get(name),
  };
}

/** An event to be, with what search_index holds of its entity. */
export type Seed = {
  readonly op: Op;
  readonly version: bigint;
  /** Missing: even the tombstone is gone. */
  readonly row: "live" | "tombstone" | "missing";
  readonly entityId?: string;
  readonly text?: string;
};

/** Events of as many live documents. */
export const upserts = (count: number): Seed[] =>
  Array.from({ length: count }, () => ({ op: "upsert", version: 7n, row: "live" }));

export type Seeded = { readonly id: bigint; readonly entityId: string; readonly documentId: string };

/** Writes rows and events in one go; the ids of the events rise in the order given. */
export async function seed(db: Db, seeds: readonly Seed[]): Promise<Seeded[]> {
  const ids = seeds.map((s) => s.entityId ?? crypto.randomUUID());
  const rows = JSON.stringify(seeds.map((s, i) => [ids[i], s.op, s.version.toString(), s.row, s.text ?? "words"]));
  await db.execute(sql`
    insert into search_index (entity_type, entity_id, title, text, snippet, event_version, deleted_at)
    select 'tag', (r->>0)::uuid, 'title', r->>4, '', (r->>2)::bigint, case r->>3 when 'tombstone' then now() end
      from jsonb_array_elements(${rows}::jsonb) r where r->>3 <> 'missing'
        on conflict (entity_type, entity_id) do update
       set event_version = excluded.event_version, deleted_at = excluded.deleted_at where search_index.event_version < excluded.event_version`);
  const events = await db.execute<{ id: string }>(sql`
    insert into search_outbox_events (entity_type, entity_id, op, event_version)
    select 'tag', (r->>0)::uuid, r->>1, (r->>2)::bigint from jsonb_array_elements(${rows}::jsonb) with ordinality as s(r, n) order by n
    returning id::text`);
  const sorted = events.map((e) => BigInt(e.id)).sort((a, b) => (a < b ? -1 : 1));
  return seeds.map((_, i) => ({ id: sorted[i] ?? 0n, entityId: ids[i] ?? "", documentId: `tag:${ids[i]}` }));
}

export type Row = {
  readonly status: string;
  readonly result: string | null;
  readonly reason: string | null;
  readonly attempts: number;
  readonly counted: number;
  readonly error: string | null;
  /** Seconds until it is due again; null when it is not waiting. */
  readonly dueIn: number | null;
};

/** What the rows say, in the order of their ids. */
export async function readRows(db: Db): Promise<Row[]> {
  return await db.execute<Row>(sql`
    select status, result, error_reason as reason, attempts, counted_attempts as counted, error,
           extract(epoch from nullif(next_retry_at, 'infinity') - now())::float8 as "dueIn"
      from search_outbox_events order by id`);
}

export async function emptyQueue(db: Db): Promise<void> {
  await db.execute(sql`truncate search_outbox_events, outbox_leases, search_index`);
}

/** What waits is due now. */
export async function makeDue(db: Db): Promise<void> {
  await db.execute(sql`update search_outbox_events_live set next_retry_at = now() where status = 'pending'`);
}

/** The search projection as the worker opens it, with a backoff so long that nothing comes back by itself. */
export function openSearch(
  db: Db,
  client: Client,
  options: Partial<SearchProjectionOptions> & { readonly config?: Config } = {},
): Projection {
  const { config = readConfig({}), ...rest } = options;
  return searchProjection(db, client, {
    index: "scripted",
    maxBytes: config.OUTBOX_BULK_MAX_BYTES,
    timeoutMs: 5000,
    limits: { maxAttempts: 10, terminalOnTransient: false },
    backoff: { baseMs: 3_600_000, maxMs: 3_600_000 },
    experiment: bulkExperiment(config),
    ...rest,
  });
}

/** Claims what is due and takes it through one batch, without the loop. Returns the lease, null when nothing was due. */
export async function runBatch(
  db: Db,
  projection: Projection | ((lease: Lease) => Promise<Projection>),
  { signals }: Pick<Recorded, "signals">,
  { limit = 10_000, leaseMs = 60_000 }: { readonly limit?: number; readonly leaseMs?: number } = {},
): Promise<Lease | null> {
  const queue = typeof projection === "function" ? queues.search : projection.queue;
  const claim = openClaim(db, queue, { owner: "w1", leaseMs });
  const lease = await claim(limit);
  if (lease === null) return null;
  const batch = signals.claimed(lease, { startedAt: Date.now(), tookMs: 1, limit: 500, mode: "atomic" });
  const turn = () => Promise.resolve({ granted: true, done: () => undefined });
  const pace = createPace(2, signals, () => undefined);
  const chosen = typeof projection === "function" ? await projection(lease) : projection;
  const leave = new AbortController().signal;
  const host = { db, projection: chosen, pace, signals, leaseMs, maxProcessingMs: 300_000, leave };
  await processBatch(host, lease, turn, batch);
  return lease;
}

/** The result of the last batch, as its log line tells it. */
export function batchResult({ told }: Recorded): unknown {
  return told('"projection.process_batch"').at(-1)?.["result"];
}

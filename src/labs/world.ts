import type { Client } from "@elastic/elasticsearch";
import type { Db } from "../db/client.ts";

/** Where a drill takes place: servers that are there, and what the processes of the drill need to find them. */
export type World = {
  readonly db: Db;
  readonly client: Client;
  /** Alias of the search index. */
  readonly index: string;
  /** Fires when the drill shall end before its time. */
  readonly signal: AbortSignal;
  /** The environment of every process. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where traces are asked for. */
  readonly tracesUrl: string;
  /** A trace store of the drill's own, which it may stop, and start again on the same port. */
  readonly openCollector: (port: number) => Promise<{ readonly url: string; readonly stop: () => Promise<void> }>;
};

export type DrillOptions = {
  /** Seconds that each thing a drill waits for may take. */
  readonly duration: number;
  /** Metrics ports of the drill's workers, in their order; free ones where none is given. */
  readonly metricsPorts: readonly (number | undefined)[];
  /** Seconds between a worker's start and what is done with it. */
  readonly scrapeDelay: number;
  readonly op: "upsert" | "delete";
  readonly triggerCount: number | undefined;
  readonly everyN: number;
  readonly bulkSize: number;
  readonly partialStatus: number;
  readonly breakClaimSleep: number;
  readonly leaseSeconds: number;
  readonly deleteCount: number;
};

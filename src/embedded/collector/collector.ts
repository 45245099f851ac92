import { startThread } from "../thread.ts";

/** What the thread is told, and what it answers. */
export type Start = Required<CollectorOptions>;
export type Listening = { readonly port: number; readonly queryPort: number };

export type CollectorOptions = {
  /** The folder of the spans; ":memory:" keeps them only while it runs. */
  readonly dataDir: string;
  /** 0 takes a free one. OTLP/HTTP, the query API and the pages. */
  readonly port: number;
  /** A second port that answers the same: Jaeger has its query API on one of its own. Null for none. */
  readonly queryPort?: number | null;
  /** Default: loopback, because there is no authentication. */
  readonly hostname?: string;
  /** How many spans it keeps; the oldest go. */
  readonly maxSpans?: number;
};

export type Collector = {
  /** For OTEL_EXPORTER_OTLP_ENDPOINT. */
  readonly url: string;
  /** For Jaeger's query API, and for people. */
  readonly queryUrl: string;
  /** Lets running requests end, closes the data and ends the thread. */
  readonly stop: () => Promise<void>;
};

const defaultMaxSpans = 200_000;

/** In a compiled binary the worker is an entry point of its own, and found under its path from src. */
const workerPath = import.meta.url.includes("/$bunfs/") ? "./embedded/collector/worker.ts" : "./worker.ts";

/**
 * Starts the embedded trace store on a thread of its own and resolves when it answers. Rejects with the reason, and `code` where the system gave one: EADDRINUSE
 * for a port in use; another process on the same `dataDir`; a folder that cannot be written.
 */
export async function startCollector(options: CollectorOptions): Promise<Collector> {
  const { queryPort = null, hostname = "127.0.0.1", maxSpans = defaultMaxSpans } = options;
  const worker = new Worker(new URL(workerPath, import.meta.url).href);
  const { listening, stop } = await startThread<Listening>(worker, "the embedded trace store", {
    ...options,
    queryPort,
    hostname,
    maxSpans,
  } satisfies Start);
  const urlOf = (port: number) => `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
  return { url: urlOf(listening.port), queryUrl: urlOf(listening.queryPort), stop };
}

import { openWakeUps } from "../outbox/wake.ts";
import { checkExperiments } from "../projection/experiment.ts";
import { openMetrics } from "../telemetry/metrics.ts";
import { openApi } from "./api.ts";
import { withCollector } from "./collector.ts";
import { prepareIndex, reachElasticsearch, tellMissingDocuments } from "./elasticsearch.ts";
import { aborted, graceAfter, listening } from "./listen.ts";
import { projectionNames, startProjections, tellWhenLate } from "./projections.ts";
import { type Env, readSettings, type Settings } from "./settings.ts";
import { openSinks, tellStart } from "./sinks.ts";
import { openStore } from "./store.ts";
import { welcome } from "./welcome.ts";

/** What is printed once everything answers. */
export type Ready = {
  readonly url: string;
  /** Of the embedded trace store; null when it does not run. */
  readonly tracesUrl: string | null;
  readonly migrations: number;
  readonly welcomed: boolean;
  readonly seconds: number;
};

export type UpOptions = {
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly welcome: boolean;
  readonly signal: AbortSignal;
  /** Hears of a step that takes longer than a second. */
  readonly slow: (step: string) => void;
  readonly ready: (ready: Ready) => void;
};

/** What closing may take after the grace: an embedded Postgres that is asked to end ends by itself then. */
const closingMs = 5000;

/**
 * Everything in one process: Postgres and Elasticsearch (the embedded ones where no URL is given), migrations, index, API and projections. Runs until
 * `signal` fires, then drains. What has not ended some seconds after the grace (a database that does not answer) is left behind. Throws a CommandError when it cannot start.
 */
export async function up(env: Env, options: UpOptions): Promise<void> {
  // Routine events are logged only when asked for.
  const settings = readSettings({ ...env, LOG_LEVEL: env["LOG_LEVEL"] || "warn" });
  const late = graceAfter(options.signal, settings.config.OUTBOX_SHUTDOWN_GRACE_SECONDS * 1000 + closingMs);
  await Promise.race([run(settings, options, late), aborted(late)]);
}

/** `late` fires when the grace has ended. */
async function run(read: Settings, options: UpOptions, late: AbortSignal): Promise<void> {
  const startedAt = performance.now();
  await using resources = new AsyncDisposableStack();
  const { signal } = options;
  const step = async <T>(name: string, work: Promise<T>): Promise<T> => {
    const timer = setTimeout(() => options.slow(name), 1000);
    return await work.finally(() => clearTimeout(timer));
  };
  const { settings, tracesUrl } = await withCollector(read, resources);
  const { config } = settings;
  checkExperiments(config, settings.environment);
  const metrics = openMetrics("both");
  const sinks = openSinks(config, "api", metrics, resources);
  const store = await step("starting Postgres", openStore(settings, "applied", "wordloom-up", resources, sinks));
  const client = await step("starting the search engine", reachElasticsearch(settings, resources));
  const prepared = await prepareIndex(client, settings);
  if (typeof prepared === "object") throw prepared.away;
  const wakeUps = openWakeUps(store.database);
  resources.defer(() => wakeUps.close());
  await wakeUps.listen();

  await tellStart(sinks, config);
  await tellMissingDocuments(prepared, store, sinks);
  const api = openApi(store, client, wakeUps, sinks);
  const [host, port] = [options.host ?? config.API_HOST, options.port ?? config.API_PORT];
  const { url } = listening(host, port, "give --port or set API_PORT", () => api.listen(host, port));
  const parts = { client, wakeUps, metrics, workerId: undefined, told: "api" } as const;
  const projections = startProjections(projectionNames, store, parts, signal, resources);
  tellWhenLate(late, sinks, projections);
  const welcomed = options.welcome && (await step("importing the documentation", welcome(store, wakeUps, signal)));
  const seconds = (performance.now() - startedAt) / 1000;
  if (!signal.aborted) options.ready({ url, tracesUrl, migrations: store.applied.length, welcomed, seconds });
  await aborted(signal);
  await Promise.all([api.stop(config.OUTBOX_SHUTDOWN_GRACE_SECONDS * 1000), projections.done]);
}

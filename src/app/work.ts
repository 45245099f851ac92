import { serveOps } from "../http/ops.ts";
import { openWakeUps } from "../outbox/wake.ts";
import { checkExperiments } from "../projection/experiment.ts";
import { openMetrics } from "../telemetry/metrics.ts";
import { searchAway, workerListeningAt } from "../telemetry/signals.ts";
import { prepareIndex, prepareIndexLater, reachElasticsearch, tellMissingDocuments } from "./elasticsearch.ts";
import { aborted, graceAfter, listening } from "./listen.ts";
import { combine, type ProjectionName, projectionNames, startProjections, tellWhenLate } from "./projections.ts";
import { type Env, readSettings, type Settings } from "./settings.ts";
import { openSinks, tellStart } from "./sinks.ts";
import { openStore } from "./store.ts";

type Flags = { readonly workerId?: string; readonly projection?: ProjectionName };

/**
 * Carries events to their targets until `signal` fires or OUTBOX_RUN_SECONDS have passed, then drains. What has not ended with the grace is left behind, including what it
 * was closing: leases run out. Throws a CommandError when it cannot start.
 */
export async function work(env: Env, flags: Flags, signal: AbortSignal): Promise<void> {
  const settings = readSettings(env);
  const { config } = settings;
  checkExperiments(config, settings.environment);
  const ran = new AbortController();
  const stop = AbortSignal.any([signal, ran.signal]);
  const late = graceAfter(stop, config.OUTBOX_SHUTDOWN_GRACE_SECONDS * 1000);
  const begun = () => {
    if (config.OUTBOX_RUN_SECONDS > 0) setTimeout(() => ran.abort("run_seconds"), config.OUTBOX_RUN_SECONDS * 1000);
  };
  await Promise.race([carry(settings, flags, begun, stop, late), aborted(late)]);
}

/** `begun` is called when it has what it needs; `late` fires when the grace has ended. */
async function carry(
  settings: Settings,
  flags: Flags,
  begun: () => void,
  stop: AbortSignal,
  late: AbortSignal,
): Promise<void> {
  await using resources = new AsyncDisposableStack();
  const { config } = settings;
  const metrics = openMetrics("worker");
  const store = await openStore(settings, "required", "wordloom-worker", resources, { metrics });
  const client = await reachElasticsearch(settings, resources);
  const prepared = await prepareIndex(client, settings);
  const sinks = openSinks(config, flags.projection ?? "search", metrics, resources);
  await tellStart(sinks, config);
  const wakeUps = openWakeUps(store.database);
  resources.defer(() => wakeUps.close());
  await wakeUps.listen();
  begun();
  const names = flags.projection === undefined ? projectionNames : [flags.projection];
  if (typeof prepared === "object") {
    const tell = (why: string) => searchAway(sinks, why);
    void prepareIndexLater(client, settings, prepared.away, tell, stop).then((later) =>
      tellMissingDocuments(later, store, sinks),
    );
  } else await tellMissingDocuments(prepared, store, sinks);
  const reports = (read: "live" | "ready") => combine(projections.running.map(({ health }) => health[read]()));
  // Served once it can be answered: nothing may wait between this and the start of what it reports on.
  const [metricsPort, healthPort] = [config.OUTBOX_METRICS_PORT, healthPortOf(config)];
  const ops = listening(
    config.API_HOST,
    metricsPort,
    `set OUTBOX_METRICS_PORT and OUTBOX_HTTP_PORT (now ${healthPort})`,
    () =>
      serveOps({
        host: config.API_HOST,
        metricsPort,
        healthPort,
        metrics: metrics.render,
        live: () => reports("live"),
        ready: () => reports("ready"),
      }),
  );
  resources.defer(() => ops.stop());
  workerListeningAt(sinks, ops.metricsUrl, ops.healthUrl);
  const projections = startProjections(
    names,
    store,
    { client, wakeUps, metrics, workerId: flags.workerId, told: flags.projection ?? "search" },
    stop,
    resources,
  );
  tellWhenLate(late, sinks, projections);
  await projections.done;
}

const healthPortOf = (config: { OUTBOX_METRICS_PORT: number; OUTBOX_HTTP_PORT?: number }): number =>
  config.OUTBOX_HTTP_PORT ?? (config.OUTBOX_METRICS_PORT === 0 ? 0 : config.OUTBOX_METRICS_PORT + 2);

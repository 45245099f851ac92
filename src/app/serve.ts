import { openWakeUps } from "../outbox/wake.ts";
import { openMetrics } from "../telemetry/metrics.ts";
import { listeningAt } from "../telemetry/signals.ts";
import { openApi } from "./api.ts";
import { reachElasticsearch } from "./elasticsearch.ts";
import { aborted, listening } from "./listen.ts";
import { type Env, readSettings } from "./settings.ts";
import { openSinks, tellStart } from "./sinks.ts";
import { openStore } from "./store.ts";

/** Answers the API until `signal` fires, then finishes the requests in flight. Throws a CommandError when it cannot start. */
export async function serve(env: Env, flags: { host?: string; port?: number }, signal: AbortSignal): Promise<void> {
  await using resources = new AsyncDisposableStack();
  const settings = readSettings(env);
  const { config } = settings;
  const sinks = openSinks(config, "api", openMetrics("api"), resources);
  const store = await openStore(settings, "required", "wordloom-api", resources, sinks);
  const client = await reachElasticsearch(settings, resources);
  await tellStart(sinks, config);
  const wakeUps = openWakeUps(store.database);
  resources.defer(() => wakeUps.close());
  const api = openApi(store, client, wakeUps, sinks);
  const [host, port] = [flags.host ?? config.API_HOST, flags.port ?? config.API_PORT];
  listeningAt(sinks, listening(host, port, "give --port or set API_PORT", () => api.listen(host, port)).url);
  await aborted(signal);
  await api.stop(config.OUTBOX_SHUTDOWN_GRACE_SECONDS * 1000);
}

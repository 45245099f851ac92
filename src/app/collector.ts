import { join } from "node:path";
import { type Config, dataDir, readConfig } from "../config.ts";
import { type Collector, startCollector } from "../embedded/collector/collector.ts";
import { CommandError, codeOf, messageOf } from "../errors.ts";
import { aborted } from "./listen.ts";
import type { Env, Settings } from "./settings.ts";

export type CollectorFlags = {
  readonly host?: string;
  readonly port?: number;
  readonly queryPort?: number;
  readonly maxSpans?: number;
  readonly memory?: boolean;
};

async function start(config: Config, folder: string, flags: CollectorFlags): Promise<Collector> {
  const { port = config.EMBEDDED_COLLECTOR_PORT, queryPort = config.EMBEDDED_COLLECTOR_QUERY_PORT } = flags;
  const { host = "127.0.0.1", maxSpans = config.EMBEDDED_COLLECTOR_MAX_SPANS } = flags;
  const place = flags.memory === true ? ":memory:" : join(folder, "traces");
  try {
    return await startCollector({ dataDir: place, hostname: host, port, queryPort, maxSpans });
  } catch (error) {
    const taken = codeOf(error) === "EADDRINUSE";
    const remedy = "EMBEDDED_COLLECTOR_PORT and EMBEDDED_COLLECTOR_QUERY_PORT";
    throw new CommandError(
      "failed",
      taken
        ? `port ${port} or ${queryPort} of the trace store is in use; set ${remedy} to free ones, or OTEL_EXPORTER_OTLP_ENDPOINT to the trace store already running`
        : `${messageOf(error)}; correct WORDLOOM_DATA_DIR, or set ${remedy}`,
      { cause: error },
    );
  }
}

/** Runs the embedded trace store until `signal` fires; `ready` hears where. Throws a CommandError when it cannot start. */
export async function collect(
  env: Env,
  flags: CollectorFlags,
  signal: AbortSignal,
  ready: (collector: Collector) => void,
): Promise<void> {
  const config = readConfig(env);
  const collector = await start(config, dataDir(config, env), flags);
  ready(collector);
  await aborted(signal);
  await collector.stop();
}

/**
 * Where tracing is on and no collector is named, starts the embedded one and names it; it ends with `resources`, after what is opened later. Throws a CommandError
 * when it cannot start.
 */
export async function withCollector(
  settings: Settings,
  resources: AsyncDisposableStack,
): Promise<{ settings: Settings; tracesUrl: string | null }> {
  const { config } = settings;
  const wanted = config.WORDLOOM_TRACING_ENABLED && !config.OTEL_SDK_DISABLED;
  const given = config.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT ?? config.OTEL_EXPORTER_OTLP_ENDPOINT;
  if (!wanted || given !== undefined) return { settings, tracesUrl: null };
  const collector = await start(config, settings.dataDir, {});
  resources.defer(() => collector.stop());
  const named = { ...config, OTEL_EXPORTER_OTLP_ENDPOINT: collector.url };
  return { settings: { ...settings, config: named }, tracesUrl: collector.queryUrl };
}

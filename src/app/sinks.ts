import type { Config } from "../config.ts";
import { type ServiceName, services } from "../telemetry/keys.ts";
import { openLog } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { type Build, type Sinks, spansDropped, started } from "../telemetry/signals.ts";
import { openTracing } from "../telemetry/tracing.ts";
import { version } from "../version.ts";

const [release = version, revision = "dev"] = version.split("+");
const build: Build = { version: release, revision };

/** Log, metrics and spans of one service; spans are flushed with `resources`. */
export function openSinks(
  config: Config,
  service: ServiceName,
  metrics: Metrics,
  resources: AsyncDisposableStack,
): Sinks {
  const tracing = openTracing(config, service, version, spansDropped(metrics));
  resources.defer(() => tracing.close());
  return { log: openLog(config, services[service]), metrics, tracing };
}

/** Tells what the process starts with. */
export const tellStart = (sinks: Sinks, config: Config): void => started(sinks, config, build);

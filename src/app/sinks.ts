import type { Config } from "../config.ts";
import { type ServiceName, services } from "../telemetry/keys.ts";
import { openLog } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { type Build, type Sinks, spansDropped, started } from "../telemetry/signals.ts";
import { openTracing, type Tracing } from "../telemetry/tracing.ts";
import { commit, release, version } from "../version.ts";

const build: Build = { version: release, revision: commit };

const flushed = new WeakMap<AsyncDisposableStack, Tracing[]>();

/** All services of a process flush at the same time, where the first of them was opened: each may take two seconds. */
function flushWith(resources: AsyncDisposableStack, tracing: Tracing): void {
  const others = flushed.get(resources);
  if (others) return void others.push(tracing);
  const all = [tracing];
  flushed.set(resources, all);
  resources.defer(async () => void (await Promise.all(all.map((one) => one.close()))));
}

/** Log, metrics and spans of one service; spans are flushed with `resources`. */
export function openSinks(
  config: Config,
  service: ServiceName,
  metrics: Metrics,
  resources: AsyncDisposableStack,
): Sinks {
  const log = openLog(config, services[service]);
  const tracing = openTracing(config, service, version, spansDropped(metrics, log));
  flushWith(resources, tracing);
  return { log, metrics, tracing };
}

/** Logs what the process starts with. */
export const tellStart = (sinks: Sinks, config: Config): Promise<void> => started(sinks, config, build);

import { hostname } from "node:os";
import { context, INVALID_SPAN_CONTEXT, type Tracer, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { type ExportResult, ExportResultCode } from "@opentelemetry/core";
import { OTLPTraceExporter as JsonExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPExporterBase } from "@opentelemetry/otlp-exporter-base";
import { convertLegacyHttpOptions, createOtlpHttpExportDelegate } from "@opentelemetry/otlp-exporter-base/node-http";
import { ProtobufTraceSerializer, TraceExporterMetricsHelper } from "@opentelemetry/otlp-transformer";
import { resourceFromAttributes } from "@opentelemetry/resources";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BasicTracerProvider,
  BatchSpanProcessor,
  ParentBasedSampler,
  type ReadableSpan,
  type Sampler,
  type SpanExporter,
  type SpanProcessor,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace-base";
import type { Config } from "../config.ts";
import { isReachable, parseExporterHeaders, tracesEndpoint, withoutCredentials } from "./collector-address.ts";
import { obsSchema, type ServiceName, scopes, services } from "./keys.ts";
import { pastSpans, type TellPastSpan } from "./past-spans.ts";
import { openSpanSerializer } from "./span-serializer.ts";

/** Why a span did not reach the collector. */
export const dropReasons = ["queue_full", "export_failed", "shutdown"] as const;
export type DropReason = (typeof dropReasons)[number];

/** Hears of spans that did not reach the collector; `error` is what an export failed with. */
export type TellDrop = (reason: DropReason, count: number, error?: Error) => void;

export type Tracing = {
  readonly enabled: boolean;
  readonly tracer: Tracer;
  readonly past: TellPastSpan;
  /** What start-up logs about tracing (operator documents, tracing.startup). Checks once whether anything listens where spans go, for at most a quarter of a second. */
  readonly startup: () => Promise<TracingStartup>;
  /** Sends what is left, for at most two seconds; what is left then is counted as dropped. Never throws. */
  readonly close: () => Promise<void>;
};

export type TracingStartup =
  | {
      readonly enabled: false;
      readonly reason: "not_enabled" | "otel_sdk_disabled";
      readonly WORDLOOM_TRACING_ENABLED: boolean;
      readonly OTEL_SDK_DISABLED: boolean;
    }
  | {
      readonly enabled: true;
      readonly otel_service_name: string;
      readonly otlp_protocol: string;
      readonly otlp_target: string | null;
      /** As it was set, before the path of traces was added. */
      readonly otlp_target_raw: string | null;
      /** Null where there is no target. A collector that comes later is found then. */
      readonly collector_reachable: boolean | null;
      readonly exporter_configured: boolean;
      readonly exporter_reason: "configured" | "collector_unreachable" | "no_otlp_target";
      readonly sampler: string;
      readonly sampler_arg: number;
    };

const queueSize = 8192;
// A worker that drains pays 53 µs of CPU per event with 128 or 256 at once, 58 with 512 (the SDK's default), 64 with 64.
const exportSize = 256;
const exportTimeoutMs = 3000;
const flushMs = 2000;

function createSampler(config: Config): Sampler {
  const ratio = () => new TraceIdRatioBasedSampler(config.OTEL_TRACES_SAMPLER_ARG);
  switch (config.OTEL_TRACES_SAMPLER) {
    case "always_on":
      return new AlwaysOnSampler();
    case "always_off":
      return new AlwaysOffSampler();
    case "traceidratio":
      return ratio();
    case "parentbased_always_on":
      return new ParentBasedSampler({ root: new AlwaysOnSampler() });
    case "parentbased_always_off":
      return new ParentBasedSampler({ root: new AlwaysOffSampler() });
    case "parentbased_traceidratio":
      return new ParentBasedSampler({ root: ratio() });
    default:
      return config.OTEL_TRACES_SAMPLER satisfies never;
  }
}

/**
 * Hands spans to the SDK's batch processor and keeps track of each: the SDK drops silently when its queue is full or an export fails.
 * Every export is a new attempt, so a collector that was down is found again. `abandon` counts what has not arrived by then, and whatever still ends.
 */
function countingProcessor(
  exporter: SpanExporter,
  dropped: TellDrop,
): SpanProcessor & { readonly abandon: () => void } {
  let waiting = 0;
  let abandoned = false;
  const counted: SpanExporter = {
    export: (spans: ReadableSpan[], done: (result: ExportResult) => void) => {
      exporter.export(spans, (result) => {
        // A failure is counted here; if the SDK heard of it, it would only be logged a second time.
        done({ code: ExportResultCode.SUCCESS });
        if (abandoned) return;
        waiting -= spans.length;
        if (result.code !== ExportResultCode.SUCCESS) dropped("export_failed", spans.length, result.error);
      });
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  };
  const batches = new BatchSpanProcessor(counted, {
    maxQueueSize: queueSize,
    maxExportBatchSize: exportSize,
    scheduledDelayMillis: 500,
    exportTimeoutMillis: exportTimeoutMs,
  });
  return {
    onStart: (span, parent) => batches.onStart(span, parent),
    onEnd: (span) => {
      if (abandoned) return dropped("shutdown", 1);
      if (waiting >= queueSize) return dropped("queue_full", 1);
      waiting += 1;
      batches.onEnd(span);
    },
    forceFlush: () => batches.forceFlush(),
    shutdown: () => batches.shutdown(),
    abandon: () => {
      abandoned = true;
      if (waiting > 0) dropped("shutdown", waiting);
      waiting = 0;
    },
  };
}

function createExporter(config: Config, url: string): SpanExporter {
  const options = {
    url,
    headers: parseExporterHeaders(config.OTEL_EXPORTER_OTLP_HEADERS),
    timeoutMillis: exportTimeoutMs,
    // A flush sends everything that waits at once; what exceeds the exporter's own limit of 30 requests would be refused.
    concurrencyLimit: Math.ceil(queueSize / exportSize),
  };
  if (config.OTEL_EXPORTER_OTLP_PROTOCOL === "http/json") return new JsonExporter(options);
  return new OTLPExporterBase<ReadableSpan[]>(
    createOtlpHttpExportDelegate(
      convertLegacyHttpOptions(options, "TRACES", "v1/traces", { "Content-Type": "application/x-protobuf" }),
      { ...ProtobufTraceSerializer, serializeRequest: openSpanSerializer() },
      "otlp_http_span_exporter",
      TraceExporterMetricsHelper,
      undefined,
    ),
  );
}

/**
 * Starts tracing for one service. Opt-in (WORDLOOM_TRACING_ENABLED); OTEL_SDK_DISABLED wins. One process may hold several services, each with its own resource.
 * `dropped` hears of every span that does not reach the collector. `exporter` replaces the one of the configuration in tests.
 */
export function openTracing(
  config: Config,
  service: ServiceName,
  version: string,
  dropped: TellDrop,
  exporter?: SpanExporter,
): Tracing {
  if (config.OTEL_SDK_DISABLED || !config.WORDLOOM_TRACING_ENABLED) {
    const reason = config.OTEL_SDK_DISABLED ? "otel_sdk_disabled" : "not_enabled";
    return {
      enabled: false,
      tracer: trace.getTracer("wordloom-off"),
      past: () => INVALID_SPAN_CONTEXT,
      startup: () =>
        Promise.resolve({
          enabled: false,
          reason,
          WORDLOOM_TRACING_ENABLED: config.WORDLOOM_TRACING_ENABLED,
          OTEL_SDK_DISABLED: config.OTEL_SDK_DISABLED,
        }),
      close: () => Promise.resolve(),
    };
  }
  // Global and idempotent: the first one stays.
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  const name = config.OTEL_SERVICE_NAME ?? services[service];
  const url = tracesEndpoint(config);
  const target = exporter ?? (url === undefined ? undefined : createExporter(config, url));
  const processor = target && countingProcessor(target, dropped);
  const resource = resourceFromAttributes({
    "service.name": name,
    "service.version": version,
    "service.instance.id": `${hostname()}:${process.pid}`,
    "deployment.environment.name": config.WORDLOOM_ENV,
    "wordloom.obs_schema": obsSchema,
  });
  const sampler = createSampler(config);
  const provider = new BasicTracerProvider({
    resource,
    sampler,
    spanLimits: { linkCountLimit: 128 },
    spanProcessors: processor ? [processor] : [],
  });
  return {
    enabled: true,
    tracer: provider.getTracer(scopes[service]),
    past: pastSpans(sampler, resource, { name: scopes[service] }, processor),
    startup: async () => {
      const reachable = url === undefined ? null : await isReachable(url);
      const raw = config.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT ?? config.OTEL_EXPORTER_OTLP_ENDPOINT;
      return {
        enabled: true,
        otel_service_name: name,
        otlp_protocol: config.OTEL_EXPORTER_OTLP_PROTOCOL,
        otlp_target: url === undefined ? null : withoutCredentials(url),
        otlp_target_raw: raw === undefined ? null : withoutCredentials(raw),
        collector_reachable: reachable,
        exporter_configured: target !== undefined,
        exporter_reason:
          target === undefined ? "no_otlp_target" : reachable === false ? "collector_unreachable" : "configured",
        sampler: config.OTEL_TRACES_SAMPLER,
        sampler_arg: config.OTEL_TRACES_SAMPLER_ARG,
      };
    },
    close: async () => {
      await Promise.race([provider.shutdown().catch(() => undefined), Bun.sleep(flushMs)]);
      processor?.abandon();
    },
  };
}

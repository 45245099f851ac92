import { afterAll } from "bun:test";
import { context, ROOT_CONTEXT, type Span, type SpanOptions, trace } from "@opentelemetry/api";
import { readConfig } from "../../../src/config.ts";
import { startCollector } from "../../../src/embedded/collector/collector.ts";
import { openTracing } from "../../../src/telemetry/tracing.ts";

const [otlp, query] = [process.env["JAEGER_CONTRACT_OTLP_URL"], process.env["JAEGER_CONTRACT_QUERY_URL"]];
export const real = otlp !== undefined && query !== undefined;

/**
 * What the suite runs against: the Jaeger of JAEGER_CONTRACT_OTLP_URL and JAEGER_CONTRACT_QUERY_URL, else an embedded store of the calling file's own. Where the
 * two differ the embedded one is wrong.
 */
export async function openTarget() {
  const embedded = real ? undefined : await startCollector({ dataDir: ":memory:", port: 0, queryPort: 0 });
  afterAll(() => embedded?.stop());
  const otlpUrl = otlp ?? embedded?.url ?? "";
  const queryUrl = query ?? embedded?.queryUrl ?? "";

  /** Makes spans with the product's own tracing and sends them with its exporter; they can be found when it resolves. */
  async function send(
    service: string,
    make: (sending: Sending) => void,
    env: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const config = readConfig({
      WORDLOOM_TRACING_ENABLED: "1",
      OTEL_EXPORTER_OTLP_ENDPOINT: otlpUrl,
      OTEL_SERVICE_NAME: service,
      ...env,
    });
    let lost = 0;
    const tracing = openTracing(config, "api", "1.2.3", (_, count) => {
      lost += count;
    });
    make({
      start: (name, options = {}, parent) =>
        tracing.tracer.startSpan(name, options, parent ? trace.setSpan(context.active(), parent) : ROOT_CONTEXT),
    });
    await tracing.close();
    if (lost > 0) throw new Error(`${lost} spans did not arrive at ${otlpUrl}`);
  }

  async function get(path: string, parameters: Readonly<Record<string, string>> = {}) {
    const reply = await fetch(`${queryUrl}${path}?${new URLSearchParams(parameters).toString()}`);
    const text = await reply.text();
    return { status: reply.status, json: text.startsWith("{") ? (JSON.parse(text) as unknown) : undefined };
  }

  /** What `GET /api/traces` answers. */
  async function search(parameters: Readonly<Record<string, string>>) {
    const { status, json } = await get("/api/traces", parameters);
    return { status, body: json as Envelope };
  }

  /** The ids of the traces that a search finds, sorted. */
  async function found(parameters: Readonly<Record<string, string>>): Promise<string[]> {
    const { status, body } = await search(parameters);
    if (status !== 200) throw new Error(`${status} ${JSON.stringify(body)}`);
    return (body.data ?? []).map(({ traceID }) => traceID).toSorted();
  }

  /** The trace as v1 of the API shows it. */
  async function readTrace(traceId: string): Promise<JaegerTrace> {
    const { json } = await get(`/api/traces/${traceId}`);
    const [one] = (json as Envelope).data ?? [];
    if (one === undefined) throw new Error(`no trace ${traceId}`);
    return one;
  }

  return { otlpUrl, queryUrl, send, get, search, found, readTrace };
}

/** A service that no other test has: a real Jaeger keeps what earlier runs sent. */
export const newService = (): string => `contract-${crypto.randomUUID()}`;

type Sending = { readonly start: (name: string, options?: SpanOptions, parent?: Span) => Span };

/** One span that is as long as it says. */
export const end = (span: Span, startedAt: number, durationMs: number): void => span.end(startedAt + durationMs);

export type Tag = { readonly key: string; readonly type: string; readonly value: unknown };
export type JaegerSpan = {
  readonly traceID: string;
  readonly spanID: string;
  readonly operationName: string;
  readonly references: readonly { refType: string; traceID: string; spanID: string }[];
  readonly startTime: number;
  readonly duration: number;
  readonly tags: readonly Tag[];
  readonly logs: readonly { timestamp: number; fields: readonly Tag[] }[];
  readonly processID: string;
};
export type JaegerTrace = {
  readonly traceID: string;
  readonly spans: readonly JaegerSpan[];
  readonly processes: Readonly<Record<string, { serviceName: string; tags: readonly Tag[] }>>;
};
type Envelope = {
  readonly data: readonly JaegerTrace[] | null;
  readonly total: number;
  readonly limit: number;
  readonly offset: number;
  readonly errors: readonly { code?: number; msg: string }[] | null;
};

export const tagsOf = (tags: readonly Tag[]): Record<string, unknown> =>
  Object.fromEntries(tags.map(({ key, value }) => [key, value]));

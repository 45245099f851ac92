import { Client, HttpConnection } from "@elastic/elasticsearch";
import type { SpanExporter } from "@opentelemetry/sdk-trace-base";
import { readConfig } from "../../src/config.ts";
import type { Db } from "../../src/db/client.ts";
import { type ApiServer, createServer } from "../../src/http/server.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { openMetrics } from "../../src/telemetry/metrics.ts";
import { apiSignals } from "../../src/telemetry/request-signals.ts";
import { openTracing, type Tracing } from "../../src/telemetry/tracing.ts";

export type TestApi = {
  readonly server: ApiServer;
  readonly readiness: { draining: boolean };
  /** What was logged, line by line. */
  readonly logged: string[];
  /** How often workers were woken. */
  readonly woken: { count: number };
  /** One request, as a client would send it. A body that is not a string is sent as JSON. */
  readonly send: (method: string, path: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>;
  readonly metrics: () => Promise<string>;
};

export type Answer = {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The body as JSON; {} when it is empty. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of every shape
  readonly body: any;
};

/** An engine that refuses every connection. */
const noEngine = () => new Client({ node: "http://127.0.0.1:1", Connection: HttpConnection, maxRetries: 0 });

/** The API over a database, with the real signals. Listens only when `server.listen` is called. */
export function openApi(
  db: Db,
  options: {
    env?: Record<string, string>;
    search?: { client: Client; index: string };
    exporter?: SpanExporter;
    /** In place of one made from `env` and `exporter`. */
    tracing?: Tracing;
  } = {},
): TestApi {
  const config = readConfig({ LOG_LEVEL: "debug", LOG_JSON: "1", ...options.env });
  const logged: string[] = [];
  const woken = { count: 0 };
  const metrics = openMetrics("api");
  const readiness = { draining: false };
  const sinks = {
    log: openLog(config, "test", { write: (line: string) => void logged.push(line) }),
    metrics,
    tracing: options.tracing ?? openTracing(config, "api", "test", () => {}, options.exporter),
  };
  const render = () => metrics.render(null);
  const server = createServer({
    db,
    config,
    readiness,
    signals: apiSignals(sinks),
    search: options.search ?? { client: noEngine(), index: "none" },
    wakeUps: {
      announce: () => {
        woken.count += 1;
      },
      subscribe: () => () => {},
      listen: () => Promise.resolve(),
      close: () => Promise.resolve(),
    },
    metrics: async () => {
      const { contentType, body } = await render();
      return new Response(body, { headers: { "content-type": contentType } });
    },
  });
  return {
    server,
    readiness,
    logged,
    woken,
    metrics: async () => (await render()).body,
    send: async (method, path, body, headers = {}) => {
      const sent = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
      const request = new Request(`http://localhost${path}`, {
        method,
        headers,
        ...(sent === undefined ? {} : { body: sent }),
      });
      const response = await server.handle(request);
      const text = await response.text();
      return {
        status: response.status,
        headers: response.headers,
        text,
        body: text.startsWith("{") ? (JSON.parse(text) as unknown) : {},
      };
    },
  };
}

import { buildCommand } from "@stricli/core";
import type { CollectorFlags } from "../app/collector.ts";
import { type Context, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, optional, port, toggle, wholeNumber } from "./flags.ts";

type Flags = EnvFileFlag & CollectorFlags;

export const collector = buildCommand({
  docs: {
    brief: "Store traces and show them: a small Jaeger",
    fullDescription: [
      "Examples:",
      "  wordloom collector                       OTLP/HTTP on 4318, pages and Jaeger's query API on 16686",
      "  wordloom collector --memory --port 0 --query-port 0",
      "",
      "Point OTEL_EXPORTER_OTLP_ENDPOINT at it and set WORDLOOM_TRACING_ENABLED=1. Both ports serve everything. There is no authentication, so it listens",
      "on 127.0.0.1 unless --host says otherwise. The most recent spans are kept in WORDLOOM_DATA_DIR. SIGTERM ends it, exit 0.",
    ].join("\n"),
  },
  parameters: {
    flags: {
      port: port("Instead of EMBEDDED_COLLECTOR_PORT; 0 picks any free port"),
      queryPort: port("Instead of EMBEDDED_COLLECTOR_QUERY_PORT; 0 picks any free port"),
      host: optional(String, "address", "Instead of 127.0.0.1"),
      maxSpans: optional(wholeNumber(1, 999_999_999), "count", "Instead of EMBEDDED_COLLECTOR_MAX_SPANS"),
      memory: toggle("Keep nothing on disk"),
      envFile: envFileFlag,
    },
  },
  async func(this: Context, flags: Flags) {
    const { collect } = await import("../app/collector.ts");
    const told = ({ url, queryUrl }: { url: string; queryUrl: string }) =>
      this.process.stdout.write(`wordloom collector: spans to ${url}, traces at ${queryUrl}\n`);
    await collect(readEnv(this, flags), flags, this.signal, told);
  },
});

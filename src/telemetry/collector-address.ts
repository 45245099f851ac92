import { connect } from "node:net";
import type { Config } from "../config.ts";

const probeMs = 250;

/** Where the environment sends spans; undefined when it names no collector. */
export function tracesEndpoint(config: Config): string | undefined {
  if (config.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT !== undefined) return config.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT;
  const base = config.OTEL_EXPORTER_OTLP_ENDPOINT;
  return base === undefined ? undefined : `${base.replace(/\/+$/, "")}/v1/traces`;
}

/** A URL for people: without user, password and query. */
export function withoutCredentials(url: string): string {
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname}`;
}

/** True when an OTLP/HTTP client is pointed at the gRPC port: nothing would ever arrive, and no error would say why. */
export function pointsAtGrpc(config: Config): boolean {
  const url = tracesEndpoint(config);
  return url !== undefined && new URL(url).port === "4317";
}

/** Whether anything accepts connections there, within a quarter of a second. */
export async function isReachable(url: string): Promise<boolean> {
  const { hostname, port, protocol } = new URL(url);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({
    host: hostname.replace(/^\[|\]$/g, ""),
    port: Number(port) || (protocol === "https:" ? 443 : 80),
  });
  const timer = setTimeout(() => resolve(false), probeMs);
  socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
  const open = await promise;
  clearTimeout(timer);
  socket.destroy();
  return open;
}

/** OTEL_EXPORTER_OTLP_HEADERS: `name=value` pairs, values percent-encoded. */
export function parseExporterHeaders(text: string | undefined): Record<string, string> {
  const pairs = (text ?? "").split(",").flatMap((pair) => {
    const at = pair.indexOf("=");
    return at > 0 ? [[pair.slice(0, at).trim(), decodeURIComponent(pair.slice(at + 1).trim())] as const] : [];
  });
  return Object.fromEntries(pairs);
}

import {
  BadParameter,
  ImpossibleQuery,
  named,
  parseBoolean,
  parseDuration,
  parseInteger,
  parseTime,
  parseTraceId,
} from "./parameters.ts";
import { findTraces } from "./search.ts";
import type { Store } from "./store.ts";
import { listOperations, listServices, readTrace, type StoredSpan } from "./traces.ts";

/** The query API v3 of Jaeger: traces come back as OTLP. */

const defaultLimit = 100;

export const services = (store: Store): string => JSON.stringify({ services: listServices(store) });

export function operations(store: Store, parameters: URLSearchParams): string {
  const names = listOperations(store, parameters.get("service") ?? "");
  return JSON.stringify({ operations: names.map((name) => ({ name })) });
}

/** Undefined when the trace is unknown. */
export function trace(store: Store, id: string, parameters: URLSearchParams): string | undefined {
  const traceId = read("trace_id", id, parseTraceId);
  for (const name of ["start_time", "end_time"]) optional(parameters, name, parseTime);
  optional(parameters, "raw_traces", parseBoolean);
  return result(readTrace(store, traceId));
}

/**
 * Undefined when nothing matches. `query.attributes` filters, as Jaeger does from 2.19 on (earlier ones pass over it); both spellings of the names are known,
 * query.start_time_min and query.startTimeMin.
 */
export function search(store: Store, given: URLSearchParams): string | undefined {
  const parameters = new URLSearchParams([...given].map(([name, value]): [string, string] => [snakeCase(name), value]));
  const [from, to] = ["query.start_time_min", "query.start_time_max"];
  if (!parameters.get(from) || !parameters.get(to)) throw new BadParameter(`${from} and ${to} are required`);
  const startUs = optional(parameters, from, parseTime) ?? 0;
  const endUs = optional(parameters, to, parseTime) ?? 0;
  const atoi = (text: string) => parseInteger(text, 64, "Atoi");
  const limit =
    optional(parameters, "query.num_traces", atoi) ?? optional(parameters, "query.search_depth", atoi) ?? defaultLimit;
  const minDurationUs = optional(parameters, "query.duration_min", parseDuration) || undefined;
  const maxDurationUs = optional(parameters, "query.duration_max", parseDuration) || undefined;
  optional(parameters, "query.raw_traces", parseBoolean);
  const service = parameters.get("query.service_name") || undefined;
  const operation = parameters.get("query.operation_name") || undefined;
  const tags = optional(parameters, "query.attributes", readAttributes) ?? new Map<string, string>();
  // What Jaeger finds out in its storage, and answers with 500.
  if (service === undefined && (operation !== undefined || tags.size > 0))
    throw new ImpossibleQuery("service name must be set");
  if (endUs < startUs) throw new ImpossibleQuery("min start time is above max");
  if (minDurationUs !== undefined && maxDurationUs !== undefined && maxDurationUs < minDurationUs)
    throw new ImpossibleQuery("min duration is above max");
  const query = { service, operation, tags, startUs, endUs, minDurationUs, maxDurationUs };
  const ids = findTraces(store, { ...query, limit: limit > 0 ? limit : defaultLimit });
  return result(ids.flatMap((id) => readTrace(store, id)));
}

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

const read = <T>(name: string, text: string, parse: (text: string) => T): T =>
  named(() => parse(text), `malformed parameter ${name}`);

function optional<T>(parameters: URLSearchParams, name: string, parse: (text: string) => T): T | undefined {
  const text = parameters.get(name) || undefined;
  return text === undefined ? undefined : read(name, text, parse);
}

function readAttributes(json: string): Map<string, string> {
  try {
    return new Map(Object.entries(JSON.parse(json) as object).map(([key, value]) => [key, String(value)]));
  } catch (cause) {
    throw new BadParameter(String(cause), { cause });
  }
}

/** Spans under their resources and scopes, each as it came. */
function result(spans: readonly StoredSpan[]): string | undefined {
  if (spans.length === 0) return undefined;
  const bySource = Map.groupBy(spans, ({ source }) => source);
  const resourceSpans = [...bySource].map(([{ resource, scope }, of]) => ({
    resource,
    scopeSpans: [{ scope, spans: of.map(({ span }) => span) }],
  }));
  return JSON.stringify({ result: { resourceSpans } });
}

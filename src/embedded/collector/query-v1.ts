import type { Span } from "./otlp.ts";
import {
  BadParameter,
  ImpossibleQuery,
  named,
  parseBoolean,
  parseDuration,
  parseInteger,
  parseTraceId,
} from "./parameters.ts";
import { findTraces, type TraceQuery } from "./search.ts";
import { durationUs, microseconds, type Store } from "./store.ts";
import { eventTags, resourceTags, spanTags, type Tag } from "./tags.ts";
import { listOperations, listServices, readTrace, type Source, type StoredSpan } from "./traces.ts";

/** The query API of Jaeger's user interface: `/api/services`, `/api/operations`, `/api/traces`. */

const defaultLimit = 100;
const defaultWindowUs = 2 * 24 * 3600 * 1_000_000;

type Fault = { readonly code?: number; readonly msg: string; readonly traceID?: string };

/** The envelope of every answer. `total` is set by lists of names only: Jaeger leaves it at 0 for traces. */
export function envelope(data: readonly unknown[] | null, total = 0, errors: readonly Fault[] | null = null): string {
  return JSON.stringify({ data, total, limit: 0, offset: 0, errors });
}

export function services(store: Store): string {
  const names = listServices(store);
  return envelope(names, names.length);
}

/** Of a service that is not known: null, as Jaeger has it. */
export function operationNames(store: Store, service: string): string {
  const names = listOperations(store, service);
  return envelope(names.length === 0 ? null : names, names.length);
}

export function operations(store: Store, parameters: URLSearchParams): string {
  const service = parameters.get("service") ?? "";
  if (service === "") throw new BadParameter("parameter 'service' is required");
  const names = listOperations(store, service);
  return envelope(
    names.map((name) => ({ name, spanKind: "" })),
    names.length,
  );
}

/** Undefined when the trace is unknown. */
export function trace(store: Store, id: string, parameters: URLSearchParams): string | undefined {
  const traceId = parseTraceId(id);
  for (const name of ["start", "end"]) timeParameter(parameters, name, 0);
  rawParameter(parameters);
  const spans = readTrace(store, traceId);
  return spans.length === 0 ? undefined : envelope([jaegerTrace(spans)]);
}

/** `nowUs`: what the default window ends with. `lookback` is for the user interface: the server does not read it. */
export function search(store: Store, parameters: URLSearchParams, nowUs: number): string {
  const query = readQuery(parameters, nowUs);
  const given = parameters.getAll("traceID").map((id) => named(() => parseTraceId(id), "cannot parse traceID param"));
  if (given.length === 0 && query.service === undefined) throw new BadParameter("parameter 'service' is required");
  const { minDurationUs, maxDurationUs } = query;
  if (minDurationUs !== undefined && maxDurationUs !== undefined && maxDurationUs < minDurationUs)
    throw new BadParameter("'maxDuration' should be greater than 'minDuration'");
  if (given.length === 0 && query.endUs < query.startUs) throw new ImpossibleQuery("min start time is above max");
  const found = (given.length > 0 ? given : findTraces(store, query)).map((id) => ({
    id,
    spans: readTrace(store, id),
  }));
  const missing = found.filter(({ spans }) => spans.length === 0);
  return envelope(
    found.filter(({ spans }) => spans.length > 0).map(({ spans }) => jaegerTrace(spans)),
    0,
    missing.length === 0 ? null : missing.map(({ id }) => ({ msg: "trace not found", traceID: shortId(id) })),
  );
}

function readQuery(parameters: URLSearchParams, nowUs: number): TraceQuery {
  const limit = parameters.get("limit") || undefined;
  const wanted = limit === undefined ? defaultLimit : parseInteger(limit, 32);
  const startUs = timeParameter(parameters, "start", nowUs - defaultWindowUs);
  const endUs = timeParameter(parameters, "end", nowUs);
  const tags = readTags(parameters);
  const minDurationUs = durationParameter(parameters, "minDuration");
  const maxDurationUs = durationParameter(parameters, "maxDuration");
  rawParameter(parameters);
  return {
    service: parameters.get("service") || undefined,
    operation: parameters.get("operation") || undefined,
    tags,
    startUs,
    endUs,
    minDurationUs,
    maxDurationUs,
    limit: wanted > 0 ? wanted : defaultLimit,
  };
}

function timeParameter(parameters: URLSearchParams, name: string, otherwise: number): number {
  const text = parameters.get(name) || undefined;
  return text === undefined ? otherwise : named(() => parseInteger(text), `unable to parse param '${name}'`);
}

/** Undefined for none, and for 0, which asks for nothing. */
function durationParameter(parameters: URLSearchParams, name: string): number | undefined {
  const text = parameters.get(name) || undefined;
  if (text === undefined) return undefined;
  const duration = named(() => parseDuration(text), `unable to parse param '${name}'`);
  return duration === 0 ? undefined : duration < 0 ? Number.MAX_SAFE_INTEGER : duration;
}

/** Whether spans are wanted as they came: they always are, nothing is adjusted here. */
function rawParameter(parameters: URLSearchParams): void {
  const text = parameters.get("raw") || undefined;
  if (text !== undefined) named(() => parseBoolean(text), "unable to parse param 'raw'");
}

/**
 * `tag=key:value`, repeatable, and `tags={"key":"value"}`. Jaeger wants every value to be a string; a bare true or number, which the operator documents write,
 * is taken here as the text it shows.
 */
function readTags(parameters: URLSearchParams): Map<string, string> {
  const tags = new Map<string, string>();
  for (const tag of parameters.getAll("tag")) {
    const at = tag.indexOf(":");
    if (at < 0) throw new BadParameter(`malformed 'tag' parameter, expecting key:value, received: ${tag}`);
    tags.set(tag.slice(0, at), tag.slice(at + 1));
  }
  for (const json of parameters.getAll("tags")) {
    const malformed = (what: string) => new BadParameter(`malformed 'tags' parameter, cannot unmarshal JSON: ${what}`);
    let parsed: unknown;
    try {
      parsed = JSON.parse(json);
    } catch (cause) {
      throw malformed(json === "" ? "unexpected end of JSON input" : String(cause));
    }
    if (typeof parsed !== "object" || Array.isArray(parsed))
      throw malformed(`json: cannot unmarshal ${goType(parsed)} into Go value of type map[string]string`);
    for (const [key, value] of Object.entries(parsed ?? {})) {
      if (typeof value === "object" && value !== null)
        throw malformed(`json: cannot unmarshal ${goType(value)} into Go value of type string`);
      tags.set(key, value === null ? "" : String(value));
    }
  }
  return tags;
}

const goType = (value: unknown): string =>
  Array.isArray(value) ? "array" : typeof value === "boolean" ? "bool" : typeof value;

/** Jaeger writes an id of 64 bits with 16 digits. */
const shortId = (traceId: string): string => (/^0{16}/.test(traceId) ? traceId.slice(16) : traceId);

/** A trace in the shape of Jaeger's user interface; times in microseconds. */
function jaegerTrace(spans: readonly StoredSpan[]) {
  const processIds = new Map<string, string>();
  const processes: Record<string, { serviceName: string; tags: readonly Tag[] }> = {};
  const processOf = ({ service, resource }: Source): string => {
    const tags = resourceTags(resource);
    const identity = JSON.stringify([service, tags]);
    const known = processIds.get(identity);
    if (known !== undefined) return known;
    const id = `p${processIds.size + 1}`;
    processIds.set(identity, id);
    processes[id] = { serviceName: service, tags };
    return id;
  };
  return {
    traceID: shortId(spans[0]?.span.traceId ?? ""),
    spans: spans.map(({ span, source }) => ({
      traceID: shortId(span.traceId),
      spanID: span.spanId,
      operationName: span.name,
      references: references(span),
      startTime: microseconds(span.startTimeUnixNano),
      duration: durationUs(span),
      tags: spanTags(span, source.scope),
      logs: (span.events ?? []).map((event) => ({
        timestamp: microseconds(event.timeUnixNano),
        fields: eventTags(event),
      })),
      processID: processOf(source),
      warnings: null,
    })),
    processes,
    warnings: null,
  };
}

/** The parent first, then the links; a link to the parent makes the parent one that the span merely follows. */
function references({ traceId, parentSpanId, links = [] }: Span) {
  const isParent = (link: { traceId: string; spanId: string }) =>
    link.traceId === traceId && link.spanId === parentSpanId;
  const others = links.filter((link) => !isParent(link) && !/^0+$/.test(link.traceId));
  return [
    ...(parentSpanId === undefined
      ? []
      : [
          {
            refType: links.some(isParent) ? "FOLLOWS_FROM" : "CHILD_OF",
            traceID: shortId(traceId),
            spanID: parentSpanId,
          },
        ]),
    ...others.map((link) => ({ refType: "FOLLOWS_FROM", traceID: shortId(link.traceId), spanID: link.spanId })),
  ];
}

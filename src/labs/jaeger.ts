/** Jaeger's query API (`/api/…`), as Jaeger and `wordloom collector` answer it: what the export of a drill asks for. */

/** One answer of the API, kept as it came. */
export type Answer = { readonly data: readonly unknown[] };

export type TraceQuery = {
  readonly service: string;
  /** Undefined: any. */
  readonly operation: string | undefined;
  readonly tags: Readonly<Record<string, string>>;
};

const timeoutMs = 10_000;

/** The array of an answer is what counts: `total` and `limit` beside it may say 0 while it is full (Jaeger issue 6321), and nothing found is null. */
async function ask(base: string, path: string, parameters: Readonly<Record<string, string>> = {}): Promise<Answer> {
  const url = new URL(path, base.endsWith("/") ? base : `${base}/`);
  url.search = new URLSearchParams(parameters).toString();
  const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) });
  if (!response.ok) throw new Error(`the trace store answered ${response.status}`);
  const body: unknown = await response.json();
  const data: unknown = typeof body === "object" && body !== null && "data" in body ? body.data : undefined;
  return { data: Array.isArray(data) ? data : [] };
}

export const readServices = (base: string): Promise<Answer> => ask(base, "api/services");

export const readOperations = (base: string, service: string): Promise<Answer> =>
  ask(base, `api/services/${encodeURIComponent(service)}/operations`);

/** Clocks may differ by so much. */
const slackMs = 60_000;

/** Traces of the last `lookbackMs` that have such a span, the newest first, at most `limit`. Tag values go as JSON strings: Jaeger refuses bare ones. Times are microseconds. */
export const findTraces = (base: string, query: TraceQuery, lookbackMs: number, limit: number): Promise<Answer> =>
  ask(base, "api/traces", {
    service: query.service,
    ...(query.operation === undefined ? {} : { operation: query.operation }),
    tags: JSON.stringify(query.tags),
    start: String((Date.now() - lookbackMs) * 1000),
    end: String((Date.now() + slackMs) * 1000),
    limit: String(limit),
  });

/** A span of an export, as checks read it. */
export type ExportedSpan = {
  readonly traceId: string;
  readonly operation: string;
  readonly tags: Readonly<Record<string, unknown>>;
};

const fieldOf = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
const listIn = (value: unknown, name: string): readonly unknown[] => {
  const list = fieldOf(value, name);
  return Array.isArray(list) ? list : [];
};

/** The spans of exported traces. */
export const spansIn = (answer: Answer): ExportedSpan[] =>
  answer.data.flatMap((trace) =>
    listIn(trace, "spans").map((span) => ({
      traceId: String(fieldOf(span, "traceID")),
      operation: String(fieldOf(span, "operationName")),
      tags: Object.fromEntries(listIn(span, "tags").map((tag) => [String(fieldOf(tag, "key")), fieldOf(tag, "value")])),
    })),
  );

import { type Client, errors } from "@elastic/elasticsearch";
import { causeCodeOf } from "../errors.ts";
import { errorTypeOf } from "./client.ts";
import { documentFields } from "./indices.ts";

/** One document's place in a bulk request. `version` is the entity's; Elasticsearch keeps the highest (version_type external). */
export type BulkItem = { readonly id: string; readonly version: bigint } & (
  | { readonly op: "index"; readonly source: string }
  | { readonly op: "delete" }
);

/** Why a whole request failed. Requests that failed as `lost` or `timeout` may have been applied. */
export type RequestFailure =
  | { readonly kind: "connect"; readonly detail: string }
  | { readonly kind: "lost"; readonly detail: string }
  | { readonly kind: "timeout"; readonly detail: string }
  | { readonly kind: "unreadable"; readonly detail: string }
  | {
      readonly kind: "http";
      readonly status: number;
      readonly errorType: string | null;
      readonly detail: string;
      readonly retryAfterMs: number | null;
    };

/** What the engine says of one item. */
export type ItemAnswer = {
  readonly status: number;
  readonly errorType: string | null;
  readonly detail: string;
  readonly storedVersion: bigint | null;
  /** Copies that did not take the write, though the primary did. */
  readonly failedShards: number;
};

/** What became of one item: an answer, a failure of the request that carried it, or no answer where one was owed. */
export type ItemResult =
  | ({
      readonly kind: "answered";
      /** What an experiment says of it, which has answered in the engine's place. */
      readonly labs?: Readonly<Record<string, string | number | boolean>>;
    } & ItemAnswer)
  | {
      readonly kind: "failed";
      readonly failure: RequestFailure;
      /** A request before this one failed so that this one was not even tried. */
      readonly unsent?: true;
      /** Refused alone, while other documents of its request got through. */
      readonly singled?: true;
    }
  | { readonly kind: "unanswered" };

const connectCodes = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ConnectionRefused",
  "FailedToOpenSocket",
]);
const detailLength = 500;
/** However long the engine asks us to wait: an hour's delay would outlast the outage. */
const maxRetryAfterMs = 60_000;

/** Bytes that an item takes in the body of a request. */
export function itemBytes(item: BulkItem): number {
  return Buffer.byteLength(item.id) + 100 + (item.op === "index" ? Buffer.byteLength(item.source) : 0);
}

/** The version is written as digits: a JS number would round it. */
function lines(item: BulkItem): string {
  const action = `{"${item.op}":{"_id":${JSON.stringify(item.id)},"version":${item.version},"version_type":"external"}}\n`;
  return item.op === "index" ? `${action}${item.source}\n` : action;
}

/** The body of a bulk request (NDJSON). Made ahead, so that the next request waits for the engine and not for us. */
export function bulkBody(items: readonly BulkItem[]): string {
  return items.map(lines).join("");
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** "…: version conflict, current version [5] is higher or equal to the one provided [5]": the only place that names the stored version. */
function storedVersion(reason: string): bigint | null {
  const digits = /current version \[(\d+)\]/.exec(reason)?.[1];
  return digits === undefined ? null : BigInt(digits);
}

const fieldName = `\\[(?:${documentFields.join("|")})\\]`;
/** The parts of the engine's answer that are kept. Everything else is dropped: it quotes what users wrote, in more forms than can be known ("For input string: …"), and a proxy quotes credentials. */
const telling = [
  new RegExp(`\\bfield ${fieldName}(?: of type \\[[a-z_]+\\])?`),
  new RegExp(`dynamic introduction of ${fieldName}`),
  /Malformed action\/metadata line \[\d+\]/,
  /version conflict, (?:current version \[\d+\] is higher or equal to the one provided \[\d+\]|document already exists)/,
  /blocked by: \[[A-Z_]+\/\d+\/[a-z0-9 (),/-]{1,100}\]/,
  /no such (?:index|alias)\b/,
];

/** The engine's reason without what users wrote, with the type of its cause; blank when nothing of it is known to be harmless. */
function reasonOf(error: Record<string, unknown> | undefined): string {
  // Most items have none, and the patterns take as long as all else that is read of an item.
  if (error === undefined) return "";
  const reason = textOf(error["reason"]);
  const kept = telling.flatMap((words) => words.exec(reason)?.[0] ?? []).join(", ");
  const cause = isRecord(error["caused_by"]) ? errorTypeOf(error["caused_by"]) : null;
  return cause === null ? kept : `${kept} (${cause})`.trim();
}

function readItem(raw: unknown, item: BulkItem): ItemResult {
  const answer = isRecord(raw) ? raw[item.op] : undefined;
  if (!isRecord(answer) || answer["_id"] !== item.id || typeof answer["status"] !== "number")
    return { kind: "unanswered" };
  const error = isRecord(answer["error"]) ? answer["error"] : undefined;
  const shards = answer["_shards"];
  return {
    kind: "answered",
    status: answer["status"],
    errorType: error ? errorTypeOf(error) : null,
    detail: reasonOf(error) || `status ${answer["status"]}`,
    storedVersion: answer["status"] === 409 ? storedVersion(textOf(error?.["reason"])) : null,
    failedShards: isRecord(shards) && typeof shards["failed"] === "number" ? shards["failed"] : 0,
  };
}

const failAll = (items: readonly BulkItem[], failure: RequestFailure): ItemResult[] =>
  items.map(() => ({ kind: "failed", failure }));

/**
 * Answers come one per item, in the order of the request. A reply with more or fewer is no reply to it, and says nothing of any item; an answer about another
 * document leaves its item unanswered. Nothing is ever taken for done by counting.
 */
function readItems(body: unknown, items: readonly BulkItem[]): ItemResult[] {
  const answers = isRecord(body) && Array.isArray(body["items"]) ? (body["items"] as unknown[]) : undefined;
  if (answers === undefined)
    return failAll(items, { kind: "unreadable", detail: "the answer to a bulk request has no items" });
  if (answers.length !== items.length)
    return failAll(items, {
      kind: "unreadable",
      detail: `the answer to a bulk request has ${answers.length} items, the request ${items.length}`,
    });
  return items.map((item, i) => readItem(answers[i], item));
}

/**
 * Retry-After in seconds or as a date (RFC 9110 §10.2.3), in milliseconds from now. A date counts from the Date of the answer, which is by the same clock: ours may be
 * hours off.
 */
function readRetryAfter(header: unknown, answeredAt: unknown): number | null {
  if (typeof header !== "string" || header.trim() === "") return null;
  const date = typeof answeredAt === "string" ? Date.parse(answeredAt) : Number.NaN;
  const now = Number.isNaN(date) ? Date.now() : date;
  const ms = /^\s*\d+\s*$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isNaN(ms) ? null : Math.min(maxRetryAfterMs, Math.max(0, ms));
}

function httpFailure(error: errors.ResponseError): RequestFailure {
  const body: unknown = error.meta.body;
  const problem = isRecord(body) && isRecord(body["error"]) ? body["error"] : undefined;
  return {
    kind: "http",
    status: error.statusCode ?? 0,
    errorType: problem ? errorTypeOf(problem) : null,
    detail: reasonOf(problem) || `HTTP ${error.statusCode}`,
    retryAfterMs: readRetryAfter(error.meta.headers?.["retry-after"], error.meta.headers?.["date"]),
  };
}

/** The code of the error or of what caused it, or as its message names it; blank when there is none. */
function networkCode(error: Error): string {
  return (
    causeCodeOf(error) ?? /ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH/.exec(error.message)?.[0] ?? ""
  );
}

function failureOf(error: unknown): RequestFailure {
  if (error instanceof errors.ResponseError) return httpFailure(error);
  if (error instanceof errors.TimeoutError || error instanceof errors.RequestAbortedError)
    return { kind: "timeout", detail: error.message.slice(0, detailLength) };
  if (error instanceof errors.DeserializationError) return { kind: "unreadable", detail: "the answer is not JSON" };
  if (error instanceof errors.ProductNotSupportedError)
    return { kind: "unreadable", detail: "the answer does not come from Elasticsearch" };
  if (error instanceof errors.ConnectionError || error instanceof errors.NoLivingConnectionsError) {
    const code = networkCode(error);
    const detail = `${code === "" ? "" : `${code}: `}${error.message}`.slice(0, detailLength);
    // Refused before anything was sent, or cut off afterwards: then it may have been applied.
    return connectCodes.has(code) ? { kind: "connect", detail } : { kind: "lost", detail };
  }
  throw error;
}

/**
 * `require_alias` holds for index actions alone. A request of nothing but deletes with external versions makes Elasticsearch create an index in the alias's place, and
 * answer that the document was absent (seen on 9.2.2): so for such a request the alias is asked for first.
 */
async function missingAlias(
  client: Client,
  index: string,
  items: readonly BulkItem[],
  options: { signal: AbortSignal; requestTimeout: number; maxRetries: number },
): Promise<RequestFailure | null> {
  if (items.some((item) => item.op === "index")) return null;
  if (await client.indices.existsAlias({ name: index }, options)) return null;
  return {
    kind: "http",
    status: 404,
    errorType: "index_not_found_exception",
    detail: `no such alias [${index}]`,
    retryAfterMs: null,
  };
}

/**
 * Sends one `_bulk` request to `index` (an alias: a missing one is an error, never made up). Returns one result per item, in order. Never retries, never throws for what the
 * engine or the network does; `signal` and `timeoutMs` end it in time, with an unknown outcome.
 */
export async function sendBulk(
  client: Client,
  index: string,
  items: readonly BulkItem[],
  body: string,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<ItemResult[]> {
  const request = { signal: options.signal, requestTimeout: options.timeoutMs, maxRetries: 0 };
  try {
    const missing = await missingAlias(client, index, items, request);
    if (missing !== null) return failAll(items, missing);
    const answer = await client.transport.request(
      {
        method: "POST",
        path: `/${encodeURIComponent(index)}/_bulk`,
        bulkBody: body,
        querystring: { require_alias: true },
      },
      request,
    );
    return readItems(answer, items);
  } catch (error) {
    return failAll(items, failureOf(error));
  }
}

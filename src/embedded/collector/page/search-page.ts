import { BadParameter, ImpossibleQuery, parseDuration, parseInteger } from "../parameters.ts";
import { findTraces, type TraceQuery } from "../search.ts";
import type { Store } from "../store.ts";
import { listOperations, listServices, summarizeTraces, type TraceSummary } from "../traces.ts";
import { counted, formatDuration, formatTime } from "./format.ts";
import { type Html, html } from "./html.ts";
import { layOutPage } from "./layout.ts";

const lookbacks: Readonly<Record<string, string>> = {
  "1h": "last hour",
  "6h": "last 6 hours",
  "48h": "last 2 days",
  all: "everything held",
};
const limits = ["20", "100", "500"];

/** The list of the latest traces that match the form. Invalid input is reported above it. */
export function searchPage(store: Store, parameters: URLSearchParams, nowUs: number): string {
  const services = listServices(store);
  const service = parameters.get("service") ?? "";
  let found: readonly TraceSummary[] = [];
  let fault: string | null = null;
  try {
    const summaries = summarizeTraces(store, findTraces(store, readForm(parameters, nowUs)));
    found = summaries.toSorted((a, b) => b.startUs - a.startUs);
  } catch (cause) {
    if (!(cause instanceof BadParameter || cause instanceof ImpossibleQuery)) throw cause;
    fault = cause.message;
  }
  return layOutPage(
    "Search",
    html`<h1>Traces</h1>
${form(parameters, services, service === "" ? [] : listOperations(store, service))}
${fault === null ? null : html`<p class="bad" role="alert">${fault}</p>`}
${fault === null ? results(found, services.length > 0) : null}`,
  );
}

function readForm(parameters: URLSearchParams, nowUs: number): TraceQuery {
  const value = (name: string) => parameters.get(name)?.trim() || undefined;
  const lookback = value("lookback") ?? "48h";
  const duration = (name: string) => {
    const text = value(name);
    return text === undefined ? undefined : parseDuration(text);
  };
  const tags = new Map(parameters.getAll("tags").flatMap((text) => [...readTagText(text)]));
  if (value("error") !== undefined) tags.set("error", "true");
  return {
    service: value("service"),
    operation: value("operation"),
    tags,
    startUs: lookback === "all" ? 0 : nowUs - parseDuration(lookback),
    endUs: Number.MAX_SAFE_INTEGER,
    minDurationUs: duration("minDuration"),
    maxDurationUs: duration("maxDuration"),
    limit: Math.min(500, Math.max(1, parseInteger(value("limit") ?? "20", 32))),
  };
}

/** `key=value key2="two words"`, or the JSON of Jaeger's `tags`. */
export function readTagText(text: string): Map<string, string> {
  if (text.trim().startsWith("{")) {
    try {
      return new Map(Object.entries(JSON.parse(text) as object).map(([key, value]) => [key, String(value)]));
    } catch (cause) {
      throw new BadParameter(`these tags are not JSON: ${text}`, { cause });
    }
  }
  const tags = new Map<string, string>();
  const pair = /\s*([^\s="]+)=(?:"([^"]*)"|([^\s"]*))(?=\s|$)/y;
  for (let at = 0; text.slice(at).trim() !== ""; at = pair.lastIndex) {
    pair.lastIndex = at;
    const [, key, quoted, plain] = pair.exec(text) ?? [];
    if (key === undefined)
      throw new BadParameter(`write tags as key=value or key="two words": ${text.slice(at).trim()}`);
    tags.set(key, quoted ?? plain ?? "");
  }
  return tags;
}

function form(parameters: URLSearchParams, services: readonly string[], operations: readonly string[]): Html {
  const given = (name: string) => parameters.get(name) ?? "";
  const option = (value: string, text: string, chosen: string) =>
    value === chosen
      ? html`<option value="${value}" selected>${text}</option>`
      : html`<option value="${value}">${text}</option>`;
  const lookback = given("lookback") || "48h";
  return html`<form method="get" action="/search">
<label>Service <select name="service">${option("", "all", given("service"))}${services.map((name) => option(name, name, given("service")))}</select></label>
<label>Operation <input name="operation" list="operations" value="${given("operation")}"></label>
<datalist id="operations">${operations.map((name) => html`<option value="${name}"></option>`)}</datalist>
<label class="wide">Tags <input name="tags" value="${given("tags")}" placeholder="wordloom.outbox_event_id=42"></label>
<label>At least <input name="minDuration" value="${given("minDuration")}" placeholder="10ms" size="6"></label>
<label>From <select name="lookback">${Object.entries(lookbacks).map(([value, text]) => option(value, text, lookback))}</select></label>
<label>Show <select name="limit">${limits.map((limit) => option(limit, limit, given("limit") || "20"))}</select></label>
<label><input type="checkbox" name="error" value="1"${given("error") === "" ? null : html` checked`}> with errors</label>
<button type="submit">Search</button>
</form>
<form method="get" action="/search"><label>Trace id <input name="traceID" size="34" pattern="[0-9a-fA-F]{1,32}" title="Up to 32 hex digits"></label> <button type="submit">Open</button></form>`;
}

function results(found: readonly TraceSummary[], any: boolean): Html {
  if (found.length === 0)
    return html`<p>${any ? "No matching traces." : "No spans have arrived yet. Set WORDLOOM_TRACING_ENABLED=1, and OTEL_EXPORTER_OTLP_ENDPOINT to this address."}</p>`;
  return html`<p>${counted(found.length, "trace")}, latest first</p>
<div class="scroll" tabindex="0" role="region" aria-label="Traces found"><table class="traces"><thead><tr><th scope="col">Trace</th><th scope="col">Start</th><th scope="col">Duration</th><th scope="col">Spans</th><th scope="col">Errors</th></tr></thead>
<tbody>${found.map(resultRow)}</tbody></table></div>`;
}

function resultRow({ traceId, root, startUs, durationUs, services, errors }: TraceSummary): Html {
  const spans = [...services].map(([service, count]) => `${service} ${count}`).join(", ");
  return html`<tr><td><a href="/trace/${traceId}">${root.service}: ${root.operation}</a></td><td>${formatTime(startUs)}</td><td>${formatDuration(durationUs)}</td><td>${spans}</td><td>${errors === 0 ? "0" : html`<strong class="bad">${errors}</strong>`}</td></tr>
`;
}

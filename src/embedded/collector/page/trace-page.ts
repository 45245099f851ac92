import { BadParameter, parseInteger, parseTraceId } from "../parameters.ts";
import { microseconds, type Store } from "../store.ts";
import { eventTags, isError, kindName, resourceTags, spanTags, type Tag } from "../tags.ts";
import { nameSpan, readTrace, type StoredSpan } from "../traces.ts";
import { counted, formatDuration, formatTime } from "./format.ts";
import { type Html, html } from "./html.ts";
import { layOutPage } from "./layout.ts";
import { layOut, type Row } from "./waterfall.ts";

/** Rows on one page: what a browser still scrolls well, opened or not. */
const pageRows = 1000;

/** The classes of the services' colours; after the last they come again. */
const colours = 8;

/** The page of a trace; undefined when it is unknown. */
export function tracePage(store: Store, id: string, parameters: URLSearchParams): string | undefined {
  const spans = readKnown(store, id);
  if (spans.length === 0) return undefined;
  const { rows, durationUs } = layOut(spans);
  const [root] = rows;
  const first = Math.min(...spans.map(({ span }) => microseconds(span.startTimeUnixNano)));
  const services = [...new Set(rows.map(({ stored }) => stored.source.service))];
  const colourOf = (service: string) => services.indexOf(service) % colours;
  const errors = spans.filter(({ span }) => isError(span)).length;
  const title = root === undefined ? id : `${root.stored.source.service}: ${root.stored.span.name}`;
  const from = firstRow(parameters, rows.length);
  const traceId = spans[0]?.span.traceId ?? id;
  return layOutPage(
    title,
    html`<h1>${title}</h1>
<p class="facts"><code>${traceId}</code> · ${formatTime(first)} · ${formatDuration(durationUs)} · ${counted(spans.length, "span")} ·
${errors === 0 ? "no errors" : html`<strong class="bad">${counted(errors, "error")}</strong>`} ·
<a href="/api/traces/${traceId}">JSON</a> · <a href="/api/v3/traces/${traceId}">OTLP</a></p>
<ul class="legend" aria-label="Services">${services.map((service) => html`<li>${swatch(colourOf(service))}${service}</li>`)}</ul>
<div id="tools" hidden>
<label for="filter">Filter spans</label> <input id="filter" type="search" placeholder="name, key or value">
<label><input id="errors-only" type="checkbox"> errors only</label>
<button id="expand" type="button">Open or close all</button>
<span id="shown" role="status"></span>
<span class="keys">Keys: <kbd>↑</kbd> <kbd>↓</kbd> span, <kbd>Enter</kbd> open, <kbd>n</kbd> next error, <kbd>/</kbd> filter</span>
</div>
<div class="axis" aria-hidden="true"><span></span><div>${[0, 0.25, 0.5, 0.75, 1].map((part) => html`<span>${formatDuration(Math.round(durationUs * part))}</span>`)}</div><span></span></div>
<div class="spans">
${rows.slice(from, from + pageRows).map((row) => spanRow(store, row, durationUs, colourOf(row.stored.source.service)))}
</div>
${pager(traceId, from, rows.length)}`,
  );
}

function readKnown(store: Store, id: string): StoredSpan[] {
  try {
    return readTrace(store, parseTraceId(id));
  } catch (fault) {
    if (fault instanceof BadParameter) return [];
    throw fault;
  }
}

function firstRow(parameters: URLSearchParams, count: number): number {
  const from = parameters.get("from") ?? "";
  const row = /^\d{1,9}$/.test(from) ? parseInteger(from) : 0;
  return row < count ? row : 0;
}

function pager(traceId: string, from: number, count: number): Html | null {
  if (count <= pageRows) return null;
  const link = (to: number, text: string) =>
    to < 0 || to >= count ? null : html` <a href="/trace/${traceId}?from=${to}">${text}</a>`;
  return html`<nav aria-label="Parts of the trace">Spans ${from + 1} to ${Math.min(from + pageRows, count)} of ${count}
${from === 0 ? null : link(Math.max(0, from - pageRows), "previous")}${link(from + pageRows, "next")}</nav>`;
}

const swatch = (colour: number) =>
  html`<svg class="swatch c${colour}" viewBox="0 0 10 10" aria-hidden="true"><rect width="10" height="10" rx="2"/></svg>`;

/** A bar as an SVG: its place is in attributes, since the policy of the page allows no style in the markup. */
function bar({ offsetUs, durationUs }: Row, totalUs: number, colour: number): Html {
  const percent = (part: number) => `${totalUs === 0 ? 0 : Math.round((part / totalUs) * 10_000) / 100}%`;
  const width = totalUs === 0 ? "100%" : percent(durationUs);
  return html`<svg class="bar c${colour}" aria-hidden="true"><rect x="${percent(offsetUs)}" width="${width}" height="100%" rx="2"/><rect x="${percent(offsetUs)}" width="2" height="100%"/></svg>`;
}

function spanRow(store: Store, row: Row, totalUs: number, colour: number): Html {
  const { span, source } = row.stored;
  const failed = isError(span);
  return html`<details class="span d${Math.min(row.depth, 16)}${failed ? " error" : ""}" id="s-${span.spanId}">
<summary><span class="name">${swatch(colour)}${span.name}${failed ? html` <strong class="bad">error</strong>` : null} <span class="service">${source.service}</span></span>${bar(row, totalUs, colour)}<span class="time">${formatDuration(row.durationUs)}</span></summary>
<div class="body">
<p class="facts">${kindName(span.kind) || "no kind"} · span <code>${span.spanId}</code>${span.parentSpanId === undefined ? null : html` · parent <a href="#s-${span.parentSpanId}"><code>${span.parentSpanId}</code></a>`} · starts after ${formatDuration(row.offsetUs)}</p>
${span.status?.message ? html`<p class="bad">${span.status.message}</p>` : null}
${tagTable("Attributes", spanTags(span, source.scope))}
${eventList(row)}
${linkList(store, row.stored)}
${tagTable("Resource", resourceTags(source.resource))}
</div>
</details>
`;
}

function tagTable(title: string, tags: readonly Tag[]): Html | null {
  if (tags.length === 0) return null;
  return html`<h2>${title}</h2><table><tbody>${tags.map(({ key, value }) => html`<tr><th scope="row">${key}</th><td>${String(value)}</td></tr>`)}</tbody></table>`;
}

function eventList({ stored: { span } }: Row): Html | null {
  const { events = [] } = span;
  if (events.length === 0) return null;
  const start = microseconds(span.startTimeUnixNano);
  return html`<h2>Events</h2>${events.map((event) => {
    const after = microseconds(event.timeUnixNano) - start;
    return html`<p>${after < 0 ? "before the span" : `after ${formatDuration(after)}`}</p>${tagTable("", eventTags(event))}`;
  })}`;
}

/** A link says what it leads to where that is still held. */
function linkList(store: Store, { span }: StoredSpan): Html | null {
  const { links = [] } = span;
  if (links.length === 0) return null;
  return html`<h2>Links (${links.length})</h2><ul>${links.map(({ traceId, spanId }) => {
    const target = nameSpan(store, traceId, spanId);
    const name = target === undefined ? "not held here" : `${target.service}: ${target.operation}`;
    return html`<li><a href="/trace/${traceId}#s-${spanId}">${name}</a> <code>${traceId}</code></li>`;
  })}</ul>`;
}

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decodeJson } from "../../../src/embedded/collector/otlp-json.ts";
import { readTagText, searchPage } from "../../../src/embedded/collector/page/search-page.ts";
import { tracePage } from "../../../src/embedded/collector/page/trace-page.ts";
import { layOut } from "../../../src/embedded/collector/page/waterfall.ts";
import { openStore } from "../../../src/embedded/collector/store.ts";
import { readTrace, type StoredSpan } from "../../../src/embedded/collector/traces.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c";
const nowUs = Date.now() * 1000;

type Given = Readonly<Record<string, unknown>>;
const id = (number: number) => number.toString(16).padStart(16, "0");

/** A store with these spans of one service, each a millisecond long. */
function storeOf(spans: readonly Given[], service = "svc") {
  const store = openStore(":memory:", 10_000);
  const start = BigInt(nowUs) * 1000n;
  const times = { startTimeUnixNano: String(start), endTimeUnixNano: String(start + 1_000_000n) };
  const all = spans.map((span, at) => ({ traceId, spanId: id(at + 1), name: `span ${at + 1}`, ...times, ...span }));
  const resource = { attributes: [{ key: "service.name", value: { stringValue: service } }] };
  store.write(decodeJson(JSON.stringify({ resourceSpans: [{ resource, scopeSpans: [{ spans: all }] }] })));
  return store;
}
const show = (spans: readonly Given[], query = "", service = "svc") =>
  tracePage(storeOf(spans, service), traceId, new URLSearchParams(query)) ?? "";
const search = (spans: readonly Given[], query = "") =>
  searchPage(storeOf(spans), new URLSearchParams(query), nowUs + 1e6);

describe("a page", () => {
  test("says what a span says as text, whatever it is", () => {
    const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>`;
    const attributes = [{ key: evil, value: { stringValue: evil } }];
    const span = {
      name: evil,
      traceState: "a=1",
      attributes,
      status: { code: 2, message: evil },
      events: [{ name: evil, attributes }],
    };
    const pages = [
      show([span], "", evil),
      searchPage(storeOf([span], evil), new URLSearchParams({ operation: evil, tags: evil }), nowUs + 1e6),
    ];
    for (const page of pages) {
      expect(page).toContain("&lt;script&gt;");
      expect(page).not.toContain("<script>alert");
      expect(page).not.toContain("<img");
    }
  });

  test("has no script and no style in its markup, which its policy would stop", () => {
    for (const page of [show([{}, { parentSpanId: id(1) }]), search([{}])]) {
      expect(page).not.toMatch(/<style|\sstyle=|\son\w+=|<script(?! src="\/assets\/page.js")/);
    }
  });
});

describe("the page of a trace", () => {
  test("shows each span with its bar, attributes, events, links and what went wrong", () => {
    const page = show([
      { name: "root", attributes: [{ key: "k", value: { intValue: "42" } }] },
      {
        name: "child",
        parentSpanId: id(1),
        status: { code: 2, message: "it broke" },
        events: [{ name: "happened", timeUnixNano: `${nowUs}000` }],
        links: [
          { traceId, spanId: id(1) },
          { traceId: "b".repeat(32), spanId: id(9) },
        ],
      },
    ]);
    for (const part of [
      "svc: root",
      "2 spans",
      "1 error",
      "it broke",
      "happened",
      ">42<",
      `id="s-${id(2)}"`,
      "starts after",
    ])
      expect(page).toContain(part);
    expect(page).toContain(`<a href="/trace/${traceId}#s-${id(1)}">svc: root</a>`);
    expect(page).toContain(`<a href="/trace/${"b".repeat(32)}#s-${id(9)}">not held here</a>`);
  });

  test("of many spans comes in parts", () => {
    const spans = Array.from({ length: 2500 }, () => ({}));
    const rows = (page: string) => page.match(/<details /g)?.length;
    expect(rows(show(spans))).toBe(1000);
    expect(show(spans)).toContain(`<a href="/trace/${traceId}?from=1000">next</a>`);
    expect(rows(show(spans, "from=2000"))).toBe(500);
    expect(show(spans, "from=2000")).toContain("2001 to 2500 of 2500");
    expect(rows(show(spans, "from=nonsense"))).toBe(1000);
  });

  test("is not there for an unknown trace or a broken id", () => {
    const store = storeOf([{}]);
    for (const unknown of ["b".repeat(32), "nope", "0".repeat(33)])
      expect(tracePage(store, unknown, new URLSearchParams())).toBeUndefined();
  });
});

describe("the search page", () => {
  test("lists traces by root, with the spans of each service and errors", () => {
    const page = search([{ name: "root" }, { name: "child", parentSpanId: id(1), status: { code: 2 } }]);
    expect(page).toContain(`<a href="/trace/${traceId}">svc: root</a>`);
    expect(page).toContain("svc 2");
    expect(page).toContain("1 trace, latest first");
  });

  test("finds by tags without a service, by errors and by duration", () => {
    const spans = [{ attributes: [{ key: "k", value: { stringValue: "two words" } }] }, { status: { code: 2 } }];
    const fits = (query: Record<string, string>) =>
      search(spans, String(new URLSearchParams(query))).includes("1 trace,");
    expect(fits({ tags: 'k="two words"' })).toBe(true);
    expect(fits({ tags: '{"k":"two words"}' })).toBe(true);
    expect(fits({ tags: "k=two" })).toBe(false);
    expect(fits({ error: "1" })).toBe(true);
    expect(fits({ minDuration: "1ms" })).toBe(true);
    expect(fits({ minDuration: "2ms" })).toBe(false);
    expect(fits({ service: "svc", operation: "span 2" })).toBe(true);
  });

  test("says what it cannot read", () => {
    for (const query of ["minDuration=x", "tags=nope", "limit=x", "lookback=x", "tags={"])
      expect(search([{}], query)).toContain('role="alert"');
  });

  test("says how to send spans while there are none", () => {
    expect(searchPage(openStore(":memory:", 10), new URLSearchParams(), nowUs)).toContain(
      "OTEL_EXPORTER_OTLP_ENDPOINT",
    );
  });
});

test("tags are read as they are written, quoted or not", () => {
  const word = fc.stringMatching(/^[a-z.][a-z0-9_.]{0,8}$/);
  const value = fc.stringMatching(/^[^"\n]{0,12}$/);
  fc.assert(
    fc.property(fc.uniqueArray(fc.tuple(word, value), { selector: ([key]) => key, maxLength: 5 }), (pairs) => {
      const text = pairs.map(([key, of]) => `${key}="${of}"`).join(" ");
      expect([...readTagText(text)]).toEqual(pairs);
    }),
  );
  expect(Object.fromEntries(readTagText(" a=1  b=x=y "))).toEqual({ a: "1", b: "x=y" });
});

test("a waterfall shows every span once, each below its parent, however the parents go round", () => {
  const spans = fc.array(fc.record({ parent: fc.option(fc.nat(12), { nil: undefined }), start: fc.nat(1000) }), {
    minLength: 1,
    maxLength: 12,
  });
  fc.assert(
    fc.property(spans, (given) => {
      const stored: StoredSpan[] = given.map(({ parent, start }, at) => ({
        span: {
          traceId,
          spanId: id(at + 1),
          name: "",
          ...(parent === undefined ? {} : { parentSpanId: id(parent + 1) }),
          startTimeUnixNano: String(start * 1000),
          endTimeUnixNano: String(start * 1000 + 5000),
        },
        source: { service: "svc", resource: { attributes: [] }, scope: {} },
      }));
      const { rows } = layOut(stored);
      expect(new Set(rows.map((row) => row.stored))).toEqual(new Set(stored));
      expect(rows).toHaveLength(stored.length);
      for (const [at, { depth, stored: one, offsetUs }] of rows.entries()) {
        expect(offsetUs).toBeGreaterThanOrEqual(0);
        if (depth === 0) continue;
        const parent = rows.slice(0, at).findLast((row) => row.depth === depth - 1);
        expect(parent?.stored.span.spanId).toBe(one.span.parentSpanId ?? "none");
      }
    }),
  );
});

test("what is stored is what was sent", () => {
  const text = fc.string({ unit: "grapheme", maxLength: 20 });
  const value = fc.oneof(
    text.map((stringValue) => ({ stringValue })),
    fc.boolean().map((boolValue) => ({ boolValue })),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((int) => ({ intValue: String(int) })),
    fc
      .double({ noNaN: true, noDefaultInfinity: true })
      .map((double) => ({ doubleValue: Object.is(double, -0) ? 0 : double })),
    fc.uint8Array({ maxLength: 9 }).map((bytes) => ({ bytesValue: bytes.toBase64() })),
  );
  const attributes = fc.array(fc.record({ key: text, value }), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(attributes, (given) => {
      const [read] = readTrace(storeOf([{ attributes: given }]), traceId);
      expect(read?.span.attributes).toEqual(given);
    }),
    { numRuns: 50 },
  );
});

import { describe, expect, test } from "bun:test";
import { readConfig } from "../../src/config.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { openMetrics } from "../../src/telemetry/metrics.ts";
import { canonicalHeaders, headersOf, parseHeaders } from "../../src/telemetry/propagation.ts";
import { apiSignals } from "../../src/telemetry/request-signals.ts";
import { openTracing } from "../../src/telemetry/tracing.ts";
import { spanMemory } from "../support/telemetry.ts";

/** The cases of the W3C's own suite (w3c/trace-context, test/test.py, strict, level 2), by what they ask for. */

const traceId = "12345678901234567890123456789012";
const parentId = "1234567890123456";
const valid = `00-${traceId}-${parentId}-01`;

const read = (...lines: readonly (readonly [string, string])[]) =>
  canonicalHeaders(new Headers(lines.map(([name, value]): [string, string] => [name, value])));
const readParent = (traceparent: string) => read(["traceparent", traceparent]).traceparent;
/** What is left of these tracestate header lines beside a valid traceparent. */
const readState = (...lines: readonly string[]) =>
  read(["traceparent", valid], ...lines.map((line) => ["tracestate", line] as const)).tracestate;

describe("traceparent", () => {
  test("goes on in the same trace when it is valid", () => {
    expect(readParent(valid)).toBe(valid);
    expect(readParent(`00-${traceId}-${parentId}-00`)).toBe(`00-${traceId}-${parentId}-00`);
  });

  test("is read whatever the case of the header's name, and under no other name", () => {
    for (const name of ["TraceParent", "TrAcEpArEnT", "TRACEPARENT"])
      expect(read([name, valid]).traceparent).toBe(valid);
    for (const name of ["trace-parent", "trace.parent"]) expect(read([name, valid]).traceparent).toBeNull();
  });

  test("may have spaces and tabs around it", () => {
    for (const text of [` ${valid}`, `\t${valid}`, `${valid} `, `${valid}\t`, `\t ${valid} \t`])
      expect(parseHeaders(text, null)?.traceId).toBe(traceId);
  });

  test("of a later version is read as far as it is known, and passed on as version 00", () => {
    expect(readParent(`cc-${traceId}-${parentId}-01`)).toBe(valid);
    expect(readParent(`cc-${traceId}-${parentId}-01-what-the-future-will-be-like`)).toBe(valid);
  });

  test.each([
    ["sent twice", `${valid}, ${valid}`],
    ["empty", ""],
    ["version 00 with a character behind it", `${valid}.`],
    ["version 00 with a field behind it", `${valid}-what-the-future-will-be-like`],
    ["a later version that goes on without a dash", `cc-${traceId}-${parentId}-01.what-the-future-will-be-like`],
    ["version ff", `ff-${traceId}-${parentId}-01`],
    ["a version with a character that is no hex digit", `.0-${traceId}-${parentId}-01`],
    ["a version with such a character at its end", `0.-${traceId}-${parentId}-01`],
    ["a version of three digits", `000-${traceId}-${parentId}-01`],
    ["a version of four digits", `0000-${traceId}-${parentId}-01`],
    ["a version of one digit", `0-${traceId}-${parentId}-01`],
    ["a trace id of zeros", `00-${"0".repeat(32)}-${parentId}-01`],
    ["a trace id that begins with a dot", `00-.${traceId.slice(1)}-${parentId}-01`],
    ["a trace id that ends with a dot", `00-${traceId.slice(0, 31)}.-${parentId}-01`],
    ["a trace id in upper case", `00-${"A".repeat(32)}-${parentId}-01`],
    ["a trace id that is too long", `00-${traceId}3-${parentId}-01`],
    ["a trace id that is too short", `00-${traceId.slice(1)}-${parentId}-01`],
    ["a parent id of zeros", `00-${traceId}-${"0".repeat(16)}-01`],
    ["a parent id that begins with a dot", `00-${traceId}-.${parentId.slice(1)}-01`],
    ["a parent id that ends with a dot", `00-${traceId}-${parentId.slice(0, 15)}.-01`],
    ["a parent id in upper case", `00-${traceId}-${"A".repeat(16)}-01`],
    ["a parent id that is too long", `00-${traceId}-${parentId}7-01`],
    ["a parent id that is too short", `00-${traceId}-${parentId.slice(1)}-01`],
    ["flags that begin with a dot", `00-${traceId}-${parentId}-.0`],
    ["flags that end with a dot", `00-${traceId}-${parentId}-0.`],
    ["flags of three digits", `00-${traceId}-${parentId}-001`],
    ["flags of one digit", `00-${traceId}-${parentId}-1`],
    ["flags in upper case", `00-${traceId}-${parentId}-0A`],
  ])("starts no continuation: %s", (_, text) => {
    expect(read(["traceparent", text], ["tracestate", "foo=1"])).toEqual({ traceparent: null, tracestate: null });
  });

  test("keeps sampled and random-trace-id, and no flag that has no meaning yet", () => {
    expect(readParent(`00-${traceId}-${parentId}-02`)).toEndWith("-02");
    expect(readParent(`00-${traceId}-${parentId}-ff`)).toEndWith("-03");
  });
});

describe("tracestate", () => {
  test("is nothing without a traceparent", () => {
    expect(read(["tracestate", "foo=1"])).toEqual({ traceparent: null, tracestate: null });
    expect(read(["tracestate", "foo=1,bar=2"])).toEqual({ traceparent: null, tracestate: null });
  });

  test("goes on beside a traceparent, in its order", () => {
    expect(readState("foo=1,bar=2")).toBe("foo=1,bar=2");
    expect(readState("foo=1,bar=2", "rojo=1,congo=2", "baz=3")).toBe("foo=1,bar=2,rojo=1,congo=2,baz=3");
  });

  test("is read whatever the case of the header's name, and under no other name", () => {
    for (const name of ["TraceState", "TrAcEsTaTe", "TRACESTATE"])
      expect(read(["traceparent", valid], [name, "foo=1"]).tracestate).toBe("foo=1");
    for (const name of ["trace-state", "trace.state"])
      expect(read(["traceparent", valid], [name, "foo=1"]).tracestate).toBeNull();
  });

  test("may be empty, as a whole or in parts", () => {
    expect(readState("")).toBeNull();
    expect(readState("foo=1", "")).toBe("foo=1");
    expect(readState("", "foo=1")).toBe("foo=1");
    expect(readState("foo=1,,bar=2")).toBe("foo=1,bar=2");
  });

  test("may have spaces and tabs around its members", () => {
    for (const text of ["foo=1 \t , \t bar=2, \t baz=3", "foo=1\t \t,\t \tbar=2,\t \tbaz=3"])
      expect(readState(text)).toBe("foo=1,bar=2,baz=3");
    for (const text of [" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t"]) expect(readState(text)).toBe("foo=1");
  });

  test("keeps the first of two members with one key", () => {
    expect(readState("foo=1,foo=1")).toBe("foo=1");
    expect(readState("foo=1,foo=2")).toBe("foo=1");
    expect(readState("foo=1", "foo=1")).toBe("foo=1");
    expect(readState("foo=1", "foo=2")).toBe("foo=1");
  });

  test("takes every character that is allowed", () => {
    const range = (from: number, to: number) =>
      String.fromCharCode(...Array.from({ length: to - from + 1 }, (_, i) => from + i));
    const value = range(0x20, 0x2b) + range(0x2d, 0x3c) + range(0x3e, 0x7e);
    for (const key of [`${range(0x61, 0x7a)}0123456789_-*/`, `${range(0x61, 0x7a)}0123456789_-*/@a-z0-9_-*/`])
      expect(readState(`${key}=${value}`)).toBe(`${key}=${value}`);
  });

  test("takes at signs in keys, but not in front", () => {
    for (const key of ["foo@", "foo@@bar", "foo@bar@baz", "fw529a3039@dt"])
      expect(readState(`${key}=1,bar=2`)).toBe(`${key}=1,bar=2`);
    expect(readState("@foo=1,bar=2")).toBeNull();
  });

  test("takes keys of 256 characters and no longer ones", () => {
    for (const key of [
      "z".repeat(256),
      `${"t".repeat(241)}@${"v".repeat(14)}`,
      `${"t".repeat(242)}@v`,
      `t@${"v".repeat(15)}`,
    ])
      expect(readState("foo=1", `${key}=1`)).toBe(`foo=1,${key}=1`);
    expect(readState("foo=1", `${"z".repeat(257)}=1`)).toBeNull();
  });

  test("takes 32 members and no more", () => {
    const members = (count: number) =>
      Array.from({ length: count }, (_, i) => `bar${String(i + 1).padStart(2, "0")}=${String(i + 1).padStart(2, "0")}`);
    expect(readState(members(32).join(","))).toBe(members(32).join(","));
    expect(readState(members(10).join(","), members(32).slice(10).join(","))).toBe(members(32).join(","));
    expect(readState(members(33).join(","))).toBeNull();
  });

  test.each([
    ["a space in a key", "foo =1"],
    ["an upper-case key", "FOO=1"],
    ["a dot in a key", "foo.bar=1"],
    ["two equal signs", "foo=bar=baz"],
    ["an empty value", "foo=,bar=3"],
    ["no value", "foo,bar=3"],
    ["a value of 257 characters", `foo=${"v".repeat(257)}`],
  ])("goes as a whole, and takes nothing of the trace along: %s", (_, text) => {
    expect(read(["traceparent", valid], ["tracestate", text])).toEqual({ traceparent: valid, tracestate: null });
  });

  test("passes on at most 512 characters: long members go first, then the last ones", () => {
    const long = `long=${"x".repeat(200)}`;
    const short = Array.from({ length: 20 }, (_, i) => `m${i + 10}=${"y".repeat(16)}`);
    const kept = readState([long, ...short].join(","));
    expect(kept).toBe(short.join(","));
    const many = Array.from({ length: 32 }, (_, i) => `m${i + 10}=${"y".repeat(16)}`);
    const fits = readState(many.join(","));
    expect(fits?.length).toBeLessThanOrEqual(512);
    expect(many.join(",")).toStartWith(fits ?? "-");
    expect(fits?.length).toBeGreaterThan(512 - 21);
  });
});

describe("an API request", () => {
  const config = readConfig({ WORDLOOM_TRACING_ENABLED: "1" });
  const tracing = openTracing(config, "api", "1", () => undefined, spanMemory());
  const log = openLog(config, "wordloom-api", { write: () => undefined });
  const api = apiSignals({ log, metrics: openMetrics("api"), tracing });
  const handOn = (headers: Record<string, string>) => {
    const signals = api.request(new Request("http://localhost/", { headers }));
    signals.end("/", 200, 0);
    return parseHeaders(signals.trace.traceparent, signals.trace.tracestate);
  };

  test("hands on the caller's trace under a span of its own, each request another", () => {
    const spans = [1, 2, 3].map(() => handOn({ traceparent: valid, tracestate: "foo=1" }));
    for (const span of spans) {
      expect(span?.traceId).toBe(traceId);
      expect(span?.traceState?.serialize()).toBe("foo=1");
    }
    expect(new Set([parentId, ...spans.map((span) => span?.spanId)]).size).toBe(4);
  });

  test("starts a trace where the caller has none, or a broken one", () => {
    for (const headers of [{}, { traceparent: `00-${"0".repeat(32)}-${parentId}-01` }, { tracestate: "foo=1" }]) {
      const spans = [1, 2, 3].map(() => handOn(headers));
      for (const span of spans) expect(span?.traceId).toMatch(/^(?!0+$)[0-9a-f]{32}$/);
      expect(new Set(spans.map((span) => span?.traceId)).size).toBe(3);
      expect(spans[0]?.traceState).toBeUndefined();
    }
  });

  test("hands on that the trace id is random", () => {
    expect(handOn({ traceparent: `00-${traceId}-${parentId}-03` })?.traceFlags).toBe(3);
    expect(handOn({ traceparent: `00-${traceId}-${parentId}-02` })?.traceFlags).toBe(2);
    expect(handOn({ traceparent: valid })?.traceFlags).toBe(1);
  });
});

test("a span that is none is handed on as nothing", () => {
  expect(headersOf({ traceId: "0".repeat(32), spanId: "0".repeat(16), traceFlags: 0 })).toEqual({
    traceparent: null,
    tracestate: null,
  });
});

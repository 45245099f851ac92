import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { reasons } from "../../src/events.ts";
import { type Judged, type Limits, type Verdict, verdict } from "../../src/projection/verdict.ts";
import type { ItemResult, RequestFailure } from "../../src/search/bulk.ts";
import { answered } from "../support/answered.ts";

/** The decision table, cell by cell, without a wire. cells.test.ts shows that the wire leads to these inputs. */

const limits: Limits = { maxAttempts: 10, terminalOnTransient: false };
const judged: Judged = { sentAs: "index", version: 7n, countedAttempts: 0 };

const http = (status: number, errorType: string | null = "some_exception"): ItemResult & { kind: "failed" } => ({
  kind: "failed",
  failure: { kind: "http", status, errorType, detail: "detail", retryAfterMs: null },
});
const failed = (kind: Exclude<RequestFailure["kind"], "http">): ItemResult => ({
  kind: "failed",
  failure: { kind, detail: "detail" },
});

/** A verdict in a word: done(result), retry(reason) or fail(reason), with ! where the target is at fault and + where it counts. */
function word(v: Verdict): string {
  if (v.kind === "done") return `done(${v.result})`;
  return `${v.kind}(${v.reason})${v.infrastructure ? "!" : ""}${v.kind === "retry" && v.counted ? "+" : ""} ${v.failureClass}`;
}

const both = ["index", "delete"] as const;
const index = ["index"] as const;
const remove = ["delete"] as const;

type TableRow = readonly [what: string, result: ItemResult, sentAs: readonly ("index" | "delete")[], expected: string];

const table: readonly TableRow[] = [
  ["200", answered(200), both, "done(applied)"],
  ["201", answered(201), index, "done(applied)"],
  ["404 without an error", answered(404), remove, "done(noop)"],
  ["404 without an error", answered(404), index, "retry(es_404)! 4xx"],
  ["404 index_not_found_exception", answered(404, "index_not_found_exception"), both, "retry(es_404)! 4xx"],
  ["409 stored 7", answered(409, "version_conflict_engine_exception", 7n), both, "done(superseded)"],
  ["409 stored 8", answered(409, "version_conflict_engine_exception", 8n), both, "done(superseded)"],
  ["409 stored 6", answered(409, "version_conflict_engine_exception", 6n), both, "fail(version_anomaly) 4xx"],
  ["409 stored unknown", answered(409, "version_conflict_engine_exception"), both, "fail(version_anomaly) 4xx"],
  [
    "409 stored 2^63-1",
    answered(409, "version_conflict_engine_exception", 9_223_372_036_854_775_807n),
    both,
    "done(superseded)",
  ],
  ["429 es_rejected_execution_exception", answered(429, "es_rejected_execution_exception"), both, "retry(es_429)! 429"],
  ["429 circuit_breaking_exception", answered(429, "circuit_breaking_exception"), both, "retry(es_429)! 429"],
  ["429 cluster_block_exception (flood stage)", answered(429, "cluster_block_exception"), both, "retry(es_429)! 429"],
  ["400 document_parsing_exception", answered(400, "document_parsing_exception"), both, "fail(es_4xx) 4xx"],
  ["400 mapper_parsing_exception", answered(400, "mapper_parsing_exception"), both, "fail(es_4xx) 4xx"],
  ["400 strict_dynamic_mapping_exception", answered(400, "strict_dynamic_mapping_exception"), both, "fail(es_4xx) 4xx"],
  ["400 illegal_argument_exception", answered(400, "illegal_argument_exception"), both, "fail(es_4xx) 4xx"],
  ["400 of an id that is too long", answered(400, "action_request_validation_exception"), both, "fail(es_4xx) 4xx"],
  ["400 without a type", answered(400), both, "fail(es_4xx) 4xx"],
  ["401", answered(401, "security_exception"), both, "retry(es_4xx)! 4xx"],
  ["401 without a type", answered(401), both, "retry(es_4xx)! 4xx"],
  ["403 security_exception", answered(403, "security_exception"), both, "retry(es_4xx)! 4xx"],
  [
    "403 cluster_block_exception (index.blocks.write)",
    answered(403, "cluster_block_exception"),
    both,
    "fail(es_4xx) 4xx",
  ],
  ["405", answered(405), both, "fail(es_4xx) 4xx"],
  ["408", answered(408), both, "retry(es_timeout)! 5xx"],
  ["413", answered(413), both, "fail(es_4xx) 4xx"],
  ["500", answered(500, "exception"), both, "retry(es_5xx)! 5xx"],
  ["502", answered(502), both, "retry(es_5xx)! 5xx"],
  ["503", answered(503, "unavailable_shards_exception"), both, "retry(es_5xx)! 5xx"],
  ["504", answered(504), both, "retry(es_5xx)! 5xx"],
  ["100", answered(100), both, "retry(es_unknown)+ other"],
  ["302", answered(302), both, "retry(es_unknown)+ other"],
  ["600", answered(600), both, "retry(es_unknown)+ other"],
  ["no answer where one was owed", { kind: "unanswered" }, both, "retry(es_unknown)! unknown"],
  ["request: not connected (refused, DNS, TLS)", failed("connect"), both, "retry(es_connect)! 5xx"],
  ["request: connection lost", failed("lost"), both, "retry(es_connect)! 5xx"],
  ["request: timeout", failed("timeout"), both, "retry(es_timeout)! 5xx"],
  ["request: unreadable answer", failed("unreadable"), both, "retry(es_unknown)! unknown"],
  ["request 400, isolated", http(400), both, "fail(es_4xx) 4xx"],
  ["request 400 of a proxy", http(400, null), both, "retry(es_4xx)! 4xx"],
  ["request 400 of a proxy that lets others pass", { ...http(400, null), singled: true }, both, "retry(es_4xx)+ 4xx"],
  ["request 400 media_type_header_exception", http(400, "media_type_header_exception"), both, "retry(es_4xx)! 4xx"],
  ["request 413, isolated", http(413), both, "fail(es_4xx) 4xx"],
  ["request 413 of a proxy, isolated", http(413, null), both, "fail(es_4xx) 4xx"],
  ["request 401", http(401, "security_exception"), both, "retry(es_4xx)! 4xx"],
  ["request 403 security_exception", http(403, "security_exception"), both, "retry(es_4xx)! 4xx"],
  ["request 403 of a proxy", http(403, null), both, "retry(es_4xx)! 4xx"],
  ["request 403 cluster_block_exception", http(403, "cluster_block_exception"), both, "fail(es_4xx) 4xx"],
  ["request 404 index_not_found_exception", http(404, "index_not_found_exception"), both, "retry(es_404)! 4xx"],
  ["request 404 of a proxy", http(404, null), both, "retry(es_404)! 4xx"],
  ["request 405", http(405), both, "retry(es_4xx)! 4xx"],
  ["request 406", http(406), both, "retry(es_4xx)! 4xx"],
  ["request 408", http(408), both, "retry(es_timeout)! 5xx"],
  ["request 429", http(429, "es_rejected_execution_exception"), both, "retry(es_429)! 429"],
  ["request 429 circuit_breaking_exception", http(429, "circuit_breaking_exception"), both, "retry(es_429)! 429"],
  ["request 500", http(500), both, "retry(es_5xx)! 5xx"],
  ["request 502", http(502, null), both, "retry(es_5xx)! 5xx"],
  ["request 503", http(503, null), both, "retry(es_5xx)! 5xx"],
  ["request 504", http(504, null), both, "retry(es_5xx)! 5xx"],
  ["request 0", http(0, null), both, "retry(es_unknown)! other"],
];

describe("the decision table", () => {
  for (const [what, result, sentAs, expected] of table)
    for (const as of sentAs)
      test(`${as}: ${what} is ${expected}`, () => {
        expect(word(verdict(result, { ...judged, sentAs: as }, limits))).toBe(expected);
      });
});

describe("attempts", () => {
  const at = (result: ItemResult, countedAttempts: number, terminalOnTransient: boolean) =>
    word(verdict(result, { ...judged, countedAttempts }, { maxAttempts: 10, terminalOnTransient }));
  const transient = table.filter(([, , , expected]) => expected.includes("!"));

  test("an infrastructure failure is retried however often it came before", () => {
    for (const [what, result, [sentAs = "index"], expected] of transient)
      for (const countedAttempts of [0, 9, 10, 1_000_000])
        expect([what, word(verdict(result, { ...judged, sentAs, countedAttempts }, limits))]).toEqual([what, expected]);
  });

  test("with OUTBOX_TERMINAL_ON_TRANSIENT it counts, and fails at the limit with the same reason", () => {
    for (const [, result, , expected] of transient.filter(([, , sentAs]) => sentAs.includes("index"))) {
      expect(at(result, 8, true)).toBe(expected.replace("!", "!+"));
      expect(at(result, 9, true)).toBe(expected.replace("retry", "fail"));
    }
  });

  test("what nobody can explain counts and fails at the limit", () => {
    expect(at(answered(302), 8, false)).toBe("retry(es_unknown)+ other");
    expect(at(answered(302), 9, false)).toBe("fail(es_unknown) other");
  });

  test("a document's own fault fails at the first attempt", () => {
    expect(at(answered(400, "document_parsing_exception"), 0, false)).toBe("fail(es_4xx) 4xx");
  });
});

describe("whatever the engine says", () => {
  const results: fc.Arbitrary<ItemResult> = fc.oneof(
    fc.record({
      kind: fc.constant("answered" as const),
      status: fc.integer({ min: 0, max: 999 }),
      errorType: fc.option(fc.string(), { nil: null }),
      detail: fc.string(),
      storedVersion: fc.option(fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }), { nil: null }),
      failedShards: fc.nat(3),
    }),
    fc.record({
      kind: fc.constant("failed" as const),
      failure: fc.oneof(
        fc.record({ kind: fc.constantFrom("connect", "lost", "timeout", "unreadable"), detail: fc.string() }),
        fc.record({
          kind: fc.constant("http" as const),
          status: fc.integer({ min: 0, max: 999 }),
          errorType: fc.option(fc.string(), { nil: null }),
          detail: fc.string(),
          retryAfterMs: fc.option(fc.nat(), { nil: null }),
        }),
      ),
    }),
    fc.constant({ kind: "unanswered" as const }),
  );
  const histories = fc.record({
    sentAs: fc.constantFrom(...both),
    version: fc.bigInt({ min: 1n, max: 2n ** 63n - 1n }),
    countedAttempts: fc.nat(20),
  });

  test("an event is done only by an answer that says so, and every other verdict has a public reason", () => {
    fc.assert(
      fc.property(results, histories, fc.boolean(), (result, history, terminalOnTransient) => {
        const v = verdict(result, history, { maxAttempts: 10, terminalOnTransient });
        if (v.kind !== "done") {
          expect(reasons as readonly string[]).toContain(v.reason);
          return;
        }
        if (result.kind !== "answered") throw new Error("done without an answer");
        const { status, errorType, storedVersion } = result;
        if (v.result === "noop") expect([status, errorType, history.sentAs]).toEqual([404, null, "delete"]);
        else if (v.result === "superseded")
          expect([status, storedVersion !== null && storedVersion >= history.version]).toEqual([409, true]);
        else expect(Math.floor(status / 100)).toBe(2);
      }),
      { numRuns: 2000 },
    );
  });

  test("an applied write that missed a copy is done with a warning", () => {
    const v = verdict(
      { kind: "answered", status: 200, errorType: null, detail: "", storedVersion: null, failedShards: 1 },
      judged,
      limits,
    );
    expect(v).toEqual({ kind: "done", result: "applied", warning: "shards_failed" });
  });
});

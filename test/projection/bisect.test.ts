import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type Send, sendBisecting } from "../../src/projection/search/bisect.ts";
import { createSizeLimit, cut } from "../../src/projection/search/cut.ts";
import type { BulkItem, ItemResult, RequestFailure } from "../../src/search/bulk.ts";
import { answered, landed } from "../support/answered.ts";

const http = (status: number, errorType: string | null = null): RequestFailure => ({
  kind: "http",
  status,
  errorType,
  detail: "",
  retryAfterMs: null,
});

const itemsOf = (count: number): BulkItem[] =>
  Array.from({ length: count }, (_, i) => ({ op: "index", id: String(i), version: 1n, source: "{}" }));

/** An engine that refuses requests with a poisoned document in them, and a record of what it was sent. */
function refusing(poisons: ReadonlySet<string>, failure: RequestFailure) {
  const requests: (readonly BulkItem[])[] = [];
  const send: Send = (items) => {
    requests.push(items);
    const refused = items.some(({ id }) => poisons.has(id));
    return Promise.resolve(items.map(() => (refused ? { kind: "failed", failure } : landed)));
  };
  return { requests, send };
}

/** 1 to 3 poisons among 1 to 700 documents. */
const batches = fc
  .integer({ min: 1, max: 700 })
  .chain((n) => fc.tuple(fc.constant(n), fc.uniqueArray(fc.nat(n - 1), { minLength: 1, maxLength: Math.min(3, n) })));

describe("a request that is refused for what is in it", () => {
  test("each poison is in at most ⌈log₂ n⌉ + 1 requests, is refused alone, and all others land once", async () => {
    await fc.assert(
      fc.asyncProperty(batches, fc.constantFrom(400, 413), async ([n, at], status) => {
        const poisons = new Set(at.map(String));
        const { requests, send } = refusing(poisons, http(status, status === 400 ? "parse_exception" : null));
        const results = await sendBisecting(send, itemsOf(n));
        const most = Math.ceil(Math.log2(n)) + 1;
        for (const id of poisons) {
          const carrying = requests.filter((r) => r.some((item) => item.id === id));
          expect(carrying.length).toBeLessThanOrEqual(most);
          expect(carrying.at(-1)?.map((item) => item.id)).toEqual([id]);
        }
        expect(results.map((r) => r.kind)).toEqual(
          itemsOf(n).map(({ id }) => (poisons.has(id) ? "failed" : "answered")),
        );
        const taken = requests
          .filter((r) => !r.some(({ id }) => poisons.has(id)))
          .flatMap((r) => r.map(({ id }) => id));
        expect(taken.length).toBe(n - poisons.size);
        expect(new Set(taken).size).toBe(n - poisons.size);
        expect(requests.length).toBeLessThanOrEqual(2 * most * poisons.size);
      }),
      { numRuns: 300 },
    );
  });

  test("is taken apart also where an experiment has answered for the first document of it", async () => {
    const refuses = refusing(new Set(["5"]), http(400, "parse_exception"));
    const injected = answered(429, "injected");
    const send: Send = async (items) => {
      const results = await refuses.send(items);
      return results.map((result, i) => (items[i]?.id === "0" ? injected : result));
    };
    const results = await sendBisecting(send, itemsOf(9));
    expect(results.map((r) => (r.kind === "answered" ? r.status : r.kind))).toEqual([
      429,
      ...Array.from({ length: 4 }, () => 201),
      "failed",
      ...Array.from({ length: 3 }, () => 201),
    ]);
  });

  for (const failure of [
    http(429),
    http(503),
    http(401),
    http(400, "media_type_header_exception"),
    { kind: "lost", detail: "" } as const,
  ])
    test(`${failure.kind === "http" ? `${failure.status} ${failure.errorType ?? ""}` : failure.kind} is not bisected`, async () => {
      const { requests, send } = refusing(new Set(["3"]), failure);
      await sendBisecting(send, itemsOf(17));
      expect(requests).toHaveLength(1);
    });

  test("what lets nothing pass, and is not the engine, is not asked about every document", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 700 }), async (n) => {
        const { requests, send } = refusing(new Set(itemsOf(n).map(({ id }) => id)), http(400));
        const results = await sendBisecting(send, itemsOf(n));
        expect(results).toEqual(itemsOf(n).map(() => ({ kind: "failed", failure: http(400) })));
        expect(requests.length).toBeLessThanOrEqual(2 * Math.ceil(Math.log2(n)) + 1);
      }),
    );
  });

  test("a document that is refused alone by what lets others pass is marked, and no other", async () => {
    await fc.assert(
      fc.asyncProperty(batches, async ([n, at]) => {
        const poisons = new Set(at.map(String));
        const { send } = refusing(poisons, http(400));
        const results = await sendBisecting(send, itemsOf(n));
        const marked = results.flatMap((r, i) => (r.kind === "failed" && r.singled ? [String(i)] : []));
        expect(marked.filter((id) => !poisons.has(id))).toEqual([]);
        if (poisons.size < 3 && poisons.size < n) expect(marked.toSorted()).toEqual([...poisons].toSorted());
      }),
    );
  });

  test("an outage while halves are sent ends it: what is left shares the failure and was sent", async () => {
    let sent = 0;
    const results = await sendBisecting((items) => {
      sent += 1;
      const failure = sent === 1 ? http(413) : http(503);
      return Promise.resolve(items.map(() => ({ kind: "failed", failure })));
    }, itemsOf(500));
    expect(sent).toBe(2);
    expect(results).toHaveLength(500);
    expect(new Set(results.map((r) => JSON.stringify(r)))).toEqual(
      new Set([JSON.stringify({ kind: "failed", failure: http(503) })]),
    );
  });
});

describe("a batch cut into requests", () => {
  const event = { attempts: 1, countedAttempts: 0, ageSeconds: 0, traceparent: null, tracestate: null } as const;
  const sizes = fc.array(fc.record({ text: fc.string({ unit: "grapheme", maxLength: 400 }), gone: fc.boolean() }), {
    minLength: 1,
    maxLength: 120,
  });

  test("no request is larger than asked unless one document is, and nothing is lost or moved", () => {
    fc.assert(
      fc.property(
        sizes,
        fc.integer({ min: 1024, max: 8000 }),
        fc.bigInt({ min: 1n, max: 2n ** 63n - 1n }),
        (documents, most, version) => {
          const sent = documents.map(({ text, gone }, i) => {
            const id = `block:${String(i).padStart(36, "0")}`;
            const item: BulkItem = gone
              ? { op: "delete", id, version }
              : { op: "index", id, version, source: JSON.stringify({ text: text.repeat(8) }) };
            return {
              item,
              event: {
                ...event,
                id: BigInt(i),
                entityType: "block",
                entityId: id,
                op: "upsert",
                eventVersion: version,
              } as const,
            };
          });
          const requests = cut(sent, most);
          for (const { body, sent: part } of requests)
            expect(part.length === 1 || Buffer.byteLength(body) <= most).toBe(true);
          expect(requests.flatMap((r) => r.sent)).toEqual(sent);
          expect(requests.every((r) => r.sent.length > 0)).toBe(true);
        },
      ),
      { numRuns: 300 },
    );
  });

  test("a request that the engine has no memory for halves the next ones, down to a floor; they grow back, never above the limit", () => {
    const limit = createSizeLimit(1_048_576);
    const breaking: ItemResult = { kind: "failed", failure: http(429, "circuit_breaking_exception") };
    limit.heed([breaking]);
    expect(limit.bytes()).toBe(524_288);
    limit.heed([{ kind: "failed", failure: http(429, "es_rejected_execution_exception") }]);
    expect(limit.bytes()).toBe(589_824);
    for (let i = 0; i < 20; i += 1) limit.heed([breaking]);
    expect(limit.bytes()).toBe(65_536);
    for (let i = 0; i < 20; i += 1) limit.heed([landed]);
    expect(limit.bytes()).toBe(1_048_576);
  });

  test("the floor does not lift a limit that is below it", () => {
    const limit = createSizeLimit(2048);
    limit.heed([{ kind: "failed", failure: http(429, "circuit_breaking_exception") }]);
    expect(limit.bytes()).toBe(2048);
  });
});

import { beforeEach, describe, expect, test } from "bun:test";
import type { Lease } from "../../src/events.ts";
import { buildItems } from "../../src/projection/search/document.ts";
import { itemBytes } from "../../src/search/bulk.ts";
import { batchResult, makeDue, openSearch, type Row, readRows, runBatch, seed, upserts } from "../support/batch.ts";
import { connect } from "../support/scripted-engine.ts";
import { openScriptedSearch } from "../support/scripted-search.ts";
import { type Expected, itemCases, poisonCases, requestCases } from "./cases.ts";

/** Every row of the decision table, end to end: rows in Postgres, the real projection, a scripted engine, what the rows and the counters say afterwards. */

const { db, engine, client, recorded } = await openScriptedSearch();
let cells = 0;
beforeEach(() => {
  cells += 1;
});

const sizes = [1, 2, 17, 500];
const places = ["first", "middle", "last"] as const;

/** Size × place, without those that are the same. */
const cellsOf = (positionsIn: (size: number) => number) =>
  sizes.flatMap((size) => {
    const count = positionsIn(size);
    const at = new Map(places.map((place, i) => [[0, Math.floor(count / 2), count - 1][i] ?? 0, place]));
    return Array.from(at, ([position, place]) => ({ size, place, position }));
  });

/** Unsent: what stopped a request before it would have stopped it too. */
type Told = { readonly op: string; readonly expected: Expected; readonly unsent?: boolean };
type Requested = { readonly result: string; readonly items: readonly { op: string; failureClass: string | null }[] };

/** What the counters must have risen by. */
function counters(events: readonly Told[], requests: readonly Requested[]): Record<string, number> {
  const sums: Record<string, number> = {};
  const add = (key: string) => {
    sums[key] = (sums[key] ?? 0) + 1;
  };
  for (const { op, expected, unsent } of events) {
    if (expected.kind === "done") {
      add(`outbox_processed_total{op=${op}}`);
      if (expected.result === "noop") add(`outbox_idempotent_noop_total{op=${op},reason=es_404}`);
      if (expected.result === "superseded") add(`outbox_superseded_total{op=${op}}`);
    } else {
      if (unsent !== true) add(`outbox_failed_total{op=${op},reason=${expected.reason}}`);
      add(
        `outbox_${expected.kind === "retry" ? "retry_scheduled" : "terminal_failed"}_total{op=${op},reason=${expected.reason}}`,
      );
    }
  }
  for (const { result, items } of requests) {
    add(`outbox_es_bulk_requests_total{result=${result}}`);
    if (result === "failed") add("outbox_es_bulk_failed_requests_total{}");
    for (const { op, failureClass } of items) {
      add(`outbox_es_bulk_items_total{op=${op},result=${failureClass === null ? "success" : "failed"}}`);
      if (failureClass !== null) add(`outbox_es_bulk_item_failures_total{op=${op},failure_class=${failureClass}}`);
    }
  }
  return sums;
}

const landed: Expected = { kind: "done", result: "applied" };

/** The row of an event that was sent once. */
function rowOf(expected: Expected, sent = true) {
  const attempts = sent ? 1 : 0;
  if (expected.kind === "done") return { status: "done", result: expected.result, reason: null, attempts, counted: 0 };
  return {
    status: expected.kind === "fail" ? "failed" : "pending",
    result: null,
    reason: expected.reason,
    attempts,
    counted: sent && (expected.kind === "fail" || expected.counted) ? 1 : 0,
  };
}

const brief = (rows: readonly Row[]) =>
  rows.map(({ status, result, reason, attempts, counted }) => ({ status, result, reason, attempts, counted }));

/** The batch's result: ok, partial, retry or failed. */
function resultOf(expected: readonly Expected[]): string {
  const bad = expected.filter((e) => e.kind !== "done");
  if (bad.length === 0) return "ok";
  if (bad.length < expected.length) return "partial";
  return bad.some((e) => e.kind === "fail") ? "failed" : "retry";
}

describe("one item among others", () => {
  for (const { name, seed: subject, sentAs, held, reply, expected } of itemCases) {
    for (const { size, place, position } of cellsOf((n) => n)) {
      test(`${name}: ${place} of ${size}`, async () => {
        const events = await seed(db, upserts(size).with(position, subject));
        const { documentId = "" } = events[position] ?? {};
        if (held !== undefined) engine.held.set(documentId, { version: held, source: "{}" });
        if (reply !== undefined) engine.item = ({ id }) => (id === documentId ? reply : undefined);

        await runBatch(db, openSearch(db, client), recorded);

        const all = Array.from(events, (): Expected => landed).with(position, expected);
        const rows = await readRows(db);
        expect(brief(rows)).toEqual(all.map((e) => rowOf(e)));
        expect(engine.requests).toHaveLength(1);
        const sent = engine.requests[0]?.items[position];
        expect(sent).toMatchObject({ op: sentAs, id: documentId, version: subject.version });
        expect(recorded.counted()).toEqual(
          counters(
            all.map((e, i) => ({ op: i === position ? subject.op : "upsert", expected: e })),
            [
              {
                result: expected.kind === "done" ? "success" : "partial",
                items: all.map((e, i) => ({
                  op: i === position ? sentAs : "index",
                  failureClass: e.kind === "done" ? null : e.failureClass,
                })),
              },
            ],
          ),
        );
        expect(batchResult(recorded)).toBe(resultOf(all));
        const strangers = events.filter(
          ({ documentId: id }, i) => i !== position && engine.held.get(id)?.version !== 7n,
        );
        expect(strangers).toEqual([]);
        if (expected.kind !== "done") {
          const { error } = rows[position] ?? {};
          expect(error).toStartWith(`scripted/${documentId}: ${expected.errorType ?? ""}`);
          const [line] = recorded.told(`"outbox_event_id":"${events[position]?.id}"`);
          expect(line).toMatchObject({
            reason: expected.reason,
            ...(expected.errorType === undefined ? {} : { error_type: expected.errorType }),
          });
        }
      });
    }
  }
});

/** Cuts a batch into as many requests as possible, up to three. */
async function threeRequests(lease: Lease): Promise<{ maxBytes: number; perRequest: number }> {
  const perRequest = Math.ceil(lease.events.length / 3);
  const items = await buildItems(db, lease.events);
  const bytes = items.map((item) => (item === "later" ? 0 : itemBytes(item)));
  return { maxBytes: perRequest * Math.max(...bytes), perRequest };
}

describe("a whole request among others", () => {
  for (const { name, expected, reply } of requestCases) {
    for (const { size, place, position } of cellsOf((n) => Math.ceil(n / Math.ceil(n / 3)))) {
      test(`${name}: ${place} request of ${size} events`, async () => {
        const events = await seed(db, upserts(size));
        engine.whole = (request) => (engine.requests.length === position + 1 ? reply(request, engine) : undefined);
        let perRequest = 0;

        await runBatch(
          db,
          async (lease) => {
            const cut = await threeRequests(lease);
            perRequest = cut.perRequest;
            return openSearch(db, client, { maxBytes: cut.maxBytes, timeoutMs: 500 });
          },
          recorded,
        );

        const requestOf = (i: number) => Math.floor(i / perRequest);
        const all = events.map((_, i): Expected => (requestOf(i) < position ? landed : expected));
        expect(brief(await readRows(db))).toEqual(all.map((e, i) => rowOf(e, requestOf(i) <= position)));
        expect(engine.requests).toHaveLength(position + 1);
        expect(recorded.counted()).toEqual(
          counters(
            all.map((e, i) => ({ op: "upsert", expected: e, unsent: requestOf(i) > position })),
            Array.from({ length: position + 1 }, (_, r) => ({
              result: r < position ? "success" : "failed",
              items: all
                .filter((_, i) => requestOf(i) === r)
                .map((e) => ({ op: "index", failureClass: e.kind === "done" ? null : e.failureClass })),
            })),
          ),
        );
        expect(batchResult(recorded)).toBe(resultOf(all));

        // Whatever became of it, sending it again ends at the same documents. (Of the largest batches one place is enough.)
        if (size > 100 && place !== "middle") return;
        engine.whole = () => undefined;
        await makeDue(db);
        await runBatch(db, openSearch(db, client), recorded);
        expect((await readRows(db)).filter((row) => row.status !== "done")).toEqual([]);
        expect(events.filter(({ documentId }) => engine.held.get(documentId)?.version !== 7n)).toEqual([]);
      });
    }
  }
});

describe("a request that is refused for one document", () => {
  const failed: Expected = { kind: "fail", reason: "es_4xx", failureClass: "4xx" };
  for (const { name, reply, errorType, expected = failed, alone = expected } of poisonCases) {
    for (const { size, place, position } of cellsOf((n) => n)) {
      test(`${name}: ${place} of ${size}`, async () => {
        const poison: Expected = size === 1 ? alone : expected;
        const events = await seed(db, upserts(size));
        const { documentId = "" } = events[position] ?? {};
        const poisoned = (items: readonly { id: string }[]) => items.some((item) => item.id === documentId);
        engine.whole = (request) => (poisoned(request.items) ? reply : undefined);

        await runBatch(db, openSearch(db, client), recorded);

        const all = Array.from(events, (): Expected => landed).with(position, poison);
        const rows = await readRows(db);
        expect(brief(rows)).toEqual(all.map((e) => rowOf(e)));
        expect(engine.requests.filter((r) => poisoned(r.items)).length).toBeLessThanOrEqual(
          Math.ceil(Math.log2(size)) + 1,
        );
        expect(rows[position]?.error).toStartWith(`scripted/${documentId}: ${errorType ?? "HTTP 4"}`);
        expect(recorded.counted()).toEqual(
          counters(
            all.map((e) => ({ op: "upsert", expected: e })),
            engine.requests.map(({ items }) => ({
              result: poisoned(items) ? "failed" : "success",
              items: items.map(() => ({ op: "index", failureClass: poisoned(items) ? "4xx" : null })),
            })),
          ),
        );
        expect(batchResult(recorded)).toBe(resultOf(all));
        expect(events.filter(({ documentId: id }, i) => i !== position && engine.held.get(id)?.version !== 7n)).toEqual(
          [],
        );
      });
    }
  }
});

describe("a proxy that refuses everything with a 400 of its own", () => {
  for (const size of sizes)
    test(`${size} events wait for it to go, and none of them is to blame`, async () => {
      const events = await seed(db, upserts(size));
      engine.whole = () => ({ kind: "raw", status: 400, body: "<html>", headers: { "content-type": "text/html" } });

      await runBatch(db, openSearch(db, client), recorded);

      const waiting: Expected = { kind: "retry", reason: "es_4xx", failureClass: "4xx" };
      expect(brief(await readRows(db))).toEqual(events.map(() => rowOf(waiting)));
      expect(engine.requests.length).toBeLessThanOrEqual(2 * Math.ceil(Math.log2(size)) + 1);
      expect(batchResult(recorded)).toBe("retry");

      engine.whole = () => undefined;
      await makeDue(db);
      await runBatch(db, openSearch(db, client), recorded);
      expect((await readRows(db)).filter((row) => row.status !== "done")).toEqual([]);
    });
});

describe("answers out of order", () => {
  for (const { size, place, position } of cellsOf((n) => n - 1).filter(({ size }) => size > 1)) {
    test(`two answers change places: ${place} of ${size}`, async () => {
      const events = await seed(db, upserts(size));
      engine.whole = (request) => {
        const items = engine.carryOut(request);
        return { kind: "items", items: items.with(position, items[position + 1]).with(position + 1, items[position]) };
      };

      await runBatch(db, openSearch(db, client), recorded);

      const unknown: Expected = { kind: "retry", reason: "es_unknown", failureClass: "unknown" };
      const all = events.map((_, i): Expected => (i === position || i === position + 1 ? unknown : landed));
      expect(brief(await readRows(db))).toEqual(all.map((e) => rowOf(e)));
      expect(batchResult(recorded)).toBe(resultOf(all));
    });
  }
});

describe("an engine that is not there", () => {
  const hosts = [
    ["a port that nobody listens on", "http://127.0.0.1:1"],
    ["a host that nobody knows", "http://no-such-host.invalid:9200"],
  ] as const;
  for (const [name, url] of hosts)
    for (const size of sizes)
      test(`${name}: ${size} events`, async () => {
        await seed(db, upserts(size));
        const nobody = await connect(url);

        await runBatch(db, openSearch(db, nobody), recorded);
        await nobody.close();

        const down: Expected = { kind: "retry", reason: "es_connect", failureClass: "5xx" };
        const all = Array.from({ length: size }, () => down);
        expect(brief(await readRows(db))).toEqual(all.map((e) => rowOf(e)));
        expect(recorded.counted()).toEqual(
          counters(
            all.map((e) => ({ op: "upsert", expected: e })),
            [{ result: "failed", items: all.map(() => ({ op: "index", failureClass: "5xx" })) }],
          ),
        );
        expect(batchResult(recorded)).toBe("retry");
      });
});

// The last of this file.
test("the decision table has 400 cells or more", () => {
  // Without this one.
  expect(cells - 1).toBeGreaterThanOrEqual(400);
});

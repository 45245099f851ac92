import { describe, expect, test } from "bun:test";
import { readConfig } from "../../src/config.ts";
import type { Op } from "../../src/events.ts";
import {
  type BulkExperiment,
  bulkExperiment,
  checkExperiments,
  faultAnnouncements,
} from "../../src/projection/experiment.ts";
import { type BulkItem, bulkBody, type ItemResult } from "../../src/search/bulk.ts";
import { landed } from "../support/answered.ts";

const on = (environment: Record<string, string>) => bulkExperiment(readConfig(environment));

const itemsOf = (ops: readonly Op[]): BulkItem[] =>
  ops.map((op, i) => ({
    id: `tag:${i}`,
    version: 1n,
    ...(op === "upsert" ? { op: "index", source: "{}" } : { op: "delete" }),
  }));

/** Sends a request of these through an experiment, to an engine that answers `answer`. */
async function send(experiment: BulkExperiment, ops: readonly Op[], answer: ItemResult = landed) {
  const items = itemsOf(ops);
  const sent: (readonly BulkItem[])[] = [];
  const results = await experiment.inject(items, bulkBody(items), (some, body) => {
    expect(body).toBe(bulkBody(some));
    sent.push(some);
    return Promise.resolve(some.map(() => answer));
  });
  expect(results).toHaveLength(items.length);
  return { items, results, sent };
}

/** Which items of a request of `ops` are refused; all others have been sent, and no others. */
async function hitsOf(experiment: BulkExperiment, ops: readonly Op[]): Promise<boolean[]> {
  const { items, results, sent } = await send(experiment, ops);
  const hits = results.map((result) => result !== landed);
  expect(sent.flat()).toEqual(items.filter((_, i) => hits[i] === false));
  return hits;
}
const refused = (environment: Record<string, string>, ops: readonly Op[]) => hitsOf(on(environment), ops);

const upserts = (count: number) => Array.from({ length: count }, (): Op => "upsert");

describe("injected 429", () => {
  test("nothing is refused by default, and nothing is said", async () => {
    const experiment = on({});
    expect(await hitsOf(experiment, upserts(3))).toEqual([false, false, false]);
    expect(experiment.announcements).toEqual([]);
    expect(experiment.attributes).toBeNull();
  });

  test("EVERY_N refuses every n-th item, counted across requests", async () => {
    const experiment = on({ OUTBOX_EXPERIMENT_ES_429_EVERY_N: "3" });
    const hits: boolean[] = [];
    for (const n of [2, 2, 3]) hits.push(...(await hitsOf(experiment, upserts(n))));
    expect(hits).toEqual([false, false, true, false, false, true, false]);
  });

  test("EVERY_N wins over RATIO", async () => {
    const both = { OUTBOX_EXPERIMENT_ES_429_EVERY_N: "2", OUTBOX_EXPERIMENT_ES_429_RATIO: "1" };
    expect(await refused(both, upserts(4))).toEqual([false, true, false, true]);
    expect(on(both).announcements[0]?.fields).toEqual({ mode: "every_n", effective_ratio: 0.5 });
  });

  test("RATIO refuses the same items for the same seed, others for another, and its share of many", async () => {
    const ratio = (seed: string) =>
      refused({ OUTBOX_EXPERIMENT_ES_429_RATIO: "0.3", OUTBOX_EXPERIMENT_ES_429_SEED: seed }, upserts(10_000));
    const hits = await ratio("42");
    expect(await ratio("42")).toEqual(hits);
    expect(await ratio("43")).not.toEqual(hits);
    expect(Math.abs(hits.filter(Boolean).length / 10_000 - 0.3)).toBeLessThan(0.02);
  });

  test("a request of which all is refused is not sent", async () => {
    const { results, sent } = await send(on({ OUTBOX_EXPERIMENT_ES_429_RATIO: "1" }), upserts(3));
    expect(results.map((result) => result.kind === "answered" && result.status)).toEqual([429, 429, 429]);
    expect(sent).toEqual([]);
  });

  test("OPS hits only its ops, and others do not advance the count", async () => {
    const ops: Op[] = ["upsert", "delete", "upsert", "delete", "upsert", "delete"];
    const environment = { OUTBOX_EXPERIMENT_ES_429_EVERY_N: "2", OUTBOX_EXPERIMENT_ES_429_OPS: "delete" };
    expect(await refused(environment, ops)).toEqual([false, false, false, true, false, false]);
  });

  test("what is refused is an item 429, marked as injected with its op and count", async () => {
    const { results } = await send(on({ OUTBOX_EXPERIMENT_ES_429_EVERY_N: "2" }), upserts(2));
    expect(results[1]).toMatchObject({
      kind: "answered",
      status: 429,
      errorType: "injected",
      labs: {
        "wordloom.labs.es_429.injected": true,
        "wordloom.labs.es_429.op": "upsert",
        "wordloom.labs.es_429.counter": 2,
      },
    });
  });

  test("start-up says the mode and the effective ratio", () => {
    const [said] = on({ OUTBOX_EXPERIMENT_ES_429_RATIO: "0.25", OUTBOX_EXPERIMENT_ES_429_SEED: "7" }).announcements;
    expect(said?.message).toBe(
      "ES 429 fault injection enabled: mode=ratio effective_ratio=0.250 ratio=0.25 every_n=0 ops=all seed=7",
    );
    expect(said?.fields).toEqual({ mode: "ratio", effective_ratio: 0.25 });
  });
});

describe("injected partial failure", () => {
  const partial = on({ OUTBOX_EXPERIMENT_ES_BULK_PARTIAL: "1", OUTBOX_EXPERIMENT_ES_BULK_PARTIAL_STATUS: "503" });

  test("rewrites the first of two or more answers, and leaves one alone", async () => {
    const { results, sent } = await send(partial, upserts(2));
    expect(sent.flat()).toHaveLength(2);
    const labs = { "wordloom.labs.es_bulk_partial.injected": true };
    expect(results).toMatchObject([{ status: 503, errorType: "injected", labs }, landed]);
    expect((await send(partial, upserts(1))).results).toEqual([landed]);
    expect(partial.attributes).toEqual({ "wordloom.labs.es_bulk_partial.status": 503 });
  });

  test("leaves a request that failed as a whole as it is: it must still be bisected or waited for", async () => {
    const failed: ItemResult = { kind: "failed", failure: { kind: "timeout", detail: "" } };
    expect((await send(partial, upserts(2), failed)).results).toEqual([failed, failed]);
  });

  test("start-up says it with its status", () => {
    expect(partial.announcements).toEqual([
      { message: "ES bulk partial failure injection enabled: status=503", fields: { status: 503 } },
    ]);
  });
});

test("a fault that is to be injected is said aloud, and one without an entity is said to have no effect", () => {
  const said = (env: Record<string, string>) => faultAnnouncements(readConfig(env)).map(({ message }) => message);
  const kind = { OUTBOX_FAULT_INJECT_KIND: "transient" };
  expect(said({})).toEqual([]);
  expect(said(kind)).toEqual([expect.stringContaining("OUTBOX_FAULT_INJECT_ENTITY_ID")]);
  expect(said({ ...kind, OUTBOX_FAULT_INJECT_ENTITY_ID: crypto.randomUUID() })).toEqual([
    "Fault injection enabled: kind=transient",
  ]);
});

describe("where experiments may run", () => {
  const switches = {
    OUTBOX_EXPERIMENT_ES_429_RATIO: "0.1",
    OUTBOX_EXPERIMENT_ES_429_EVERY_N: "2",
    OUTBOX_EXPERIMENT_ES_BULK_PARTIAL: "1",
    OUTBOX_EXPERIMENT_BREAK_CLAIM: "1",
    OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS: "1",
    OUTBOX_FAULT_INJECT_KIND: "transient",
  };
  for (const [name, value] of Object.entries(switches)) {
    test(`${name} is refused by name in prod and sandbox, and runs in dev and test`, () => {
      const config = readConfig({ [name]: value });
      for (const environment of ["prod", "sandbox"])
        expect(() => checkExperiments(config, environment)).toThrow(
          new RegExp(`^${name} .*WORDLOOM_ENV is ${environment}`),
        );
      for (const environment of ["dev", "test"]) expect(() => checkExperiments(config, environment)).not.toThrow();
    });
  }

  test("without a switch every environment is right", () => {
    for (const environment of ["prod", "sandbox", "dev", "test"])
      expect(() => checkExperiments(readConfig({}), environment)).not.toThrow();
  });
});

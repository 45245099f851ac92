import { describe, expect, test } from "bun:test";
import { readConfig } from "../../src/config.ts";
import type { Op } from "../../src/events.ts";
import { bulkExperiment, checkExperiments, faultAnnouncements } from "../../src/projection/experiment.ts";
import type { ItemResult } from "../../src/search/bulk.ts";
import { landed } from "../support/answered.ts";

const on = (environment: Record<string, string>) => bulkExperiment(readConfig(environment));
/** Which of `ops` are refused. */
const refused = (environment: Record<string, string>, ops: readonly Op[]) =>
  on(environment)
    .refuse(ops)
    .map((r) => r !== null);

const upserts = (count: number) => Array.from({ length: count }, (): Op => "upsert");

describe("injected 429", () => {
  test("nothing is refused by default, and nothing is said", () => {
    const experiment = on({});
    expect(experiment.refuse(upserts(3))).toEqual([null, null, null]);
    expect(experiment.announcements).toEqual([]);
    expect(experiment.attributes).toBeNull();
  });

  test("EVERY_N refuses every n-th item, counted across batches", () => {
    const experiment = on({ OUTBOX_EXPERIMENT_ES_429_EVERY_N: "3" });
    const hits = [2, 2, 3].flatMap((n) => experiment.refuse(upserts(n)).map((r) => r !== null));
    expect(hits).toEqual([false, false, true, false, false, true, false]);
  });

  test("EVERY_N wins over RATIO", () => {
    const both = { OUTBOX_EXPERIMENT_ES_429_EVERY_N: "2", OUTBOX_EXPERIMENT_ES_429_RATIO: "1" };
    expect(refused(both, upserts(4))).toEqual([false, true, false, true]);
    expect(on(both).announcements[0]?.fields).toEqual({ mode: "every_n", effective_ratio: 0.5 });
  });

  test("RATIO refuses the same items for the same seed, others for another, and its share of many", () => {
    const ratio = (seed: string) =>
      refused({ OUTBOX_EXPERIMENT_ES_429_RATIO: "0.3", OUTBOX_EXPERIMENT_ES_429_SEED: seed }, upserts(10_000));
    const hits = ratio("42");
    expect(ratio("42")).toEqual(hits);
    expect(ratio("43")).not.toEqual(hits);
    expect(Math.abs(hits.filter(Boolean).length / 10_000 - 0.3)).toBeLessThan(0.02);
    expect(refused({ OUTBOX_EXPERIMENT_ES_429_RATIO: "1" }, upserts(3))).toEqual([true, true, true]);
  });

  test("OPS hits only its ops, and others do not advance the count", () => {
    const ops: Op[] = ["upsert", "delete", "upsert", "delete", "upsert", "delete"];
    const environment = { OUTBOX_EXPERIMENT_ES_429_EVERY_N: "2", OUTBOX_EXPERIMENT_ES_429_OPS: "delete" };
    expect(refused(environment, ops)).toEqual([false, false, false, true, false, false]);
  });

  test("what is refused is an item 429, marked as injected with its op and count", () => {
    const [, second] = on({ OUTBOX_EXPERIMENT_ES_429_EVERY_N: "2" }).refuse(upserts(2));
    expect(second?.result).toMatchObject({ kind: "answered", status: 429, errorType: "injected" });
    expect(second?.attributes).toEqual({
      "wordloom.labs.es_429.injected": true,
      "wordloom.labs.es_429.op": "upsert",
      "wordloom.labs.es_429.counter": 2,
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

  test("rewrites the first of two or more answers, and leaves one alone", () => {
    expect(partial.answered([landed, landed])).toMatchObject([{ status: 503, errorType: "injected" }, landed]);
    expect(partial.answered([landed])).toEqual([landed]);
    const [rewritten] = partial.answered([landed, landed]);
    expect([rewritten, landed].map((result) => result && partial.rewritten(result))).toEqual([
      { "wordloom.labs.es_bulk_partial.injected": true },
      null,
    ]);
    expect(partial.attributes).toEqual({ "wordloom.labs.es_bulk_partial.status": 503 });
  });

  test("leaves a request that failed as a whole as it is: it must still be bisected or waited for", () => {
    const failed: ItemResult = { kind: "failed", failure: { kind: "timeout", detail: "" } };
    expect(partial.answered([failed, failed])).toEqual([failed, failed]);
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

import { expect, test } from "bun:test";
import { AsyncLocalStorage } from "node:async_hooks";
import fc from "fast-check";
import postgres from "postgres";
import { asEachCaller } from "../../src/db/callers.ts";
import { databaseErrorCode } from "../../src/db/failure.ts";
import { gather } from "../../src/db/gather.ts";
import { rejection } from "../support/library.ts";

/** Work that waits until it is let go, and says what it was given. */
function held() {
  const given: number[][] = [];
  const gates: PromiseWithResolvers<void>[] = [];
  const work = async (items: readonly number[]): Promise<(number | Error)[]> => {
    given.push([...items]);
    const gate = Promise.withResolvers<void>();
    gates.push(gate);
    await gate.promise;
    return items.map((n) => (n < 0 ? new Error(`refused ${n}`) : n * 10));
  };
  const release = (n: number) => gates[n]?.resolve();
  const fail = (n: number, error: unknown) => gates[n]?.reject(error);
  return { given, work, release, fail };
}

const timeoutMs = 20_000;

/** Lets everything go on that waits for nothing but its turn. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));
const failed = (code: string) => Object.assign(new Error("no"), { code });
/** As the driver throws what the server says. */
const refused = (code: string) => Object.assign(new postgres.PostgresError("no"), { severity: "ERROR", code });

test("what comes alone goes at once, and what comes meanwhile goes together, in its order", async () => {
  const { given, work, release } = held();
  const { ask } = gather(work, { most: 3, atOnce: 1, timeoutMs });
  const answers = [1, 2, 3, 4, 5].map(ask);
  expect(given).toEqual([[1]]);
  release(0);
  await settled();
  expect(given).toEqual([[1], [2, 3, 4]]);
  release(1);
  await settled();
  expect(given).toEqual([[1], [2, 3, 4], [5]]);
  release(2);
  expect(await Promise.all(answers)).toEqual([10, 20, 30, 40, 50]);
});

test("as many are under way as may be, so that one which waits does not hold up the rest", async () => {
  const { given, work, release } = held();
  const { ask } = gather(work, { most: 10, atOnce: 2, timeoutMs });
  const [waits, ...rest] = [1, 2, 3, 4].map(ask);
  expect(given).toEqual([[1], [2]]);
  release(1);
  await settled();
  expect(given).toEqual([[1], [2], [3, 4]]);
  release(2);
  expect(await Promise.all(rest)).toEqual([20, 30, 40]);
  release(0);
  expect(await waits).toBe(10);
});

test("an item that is refused is refused alone", async () => {
  const { work, release } = held();
  const { ask } = gather(work, { most: 10, atOnce: 1, timeoutMs });
  const answers = [0, 1, -2, 3].map(ask);
  const refusal = rejection(answers[2] ?? Promise.resolve());
  release(0);
  await settled();
  release(1);
  expect([await answers[0], await answers[1], await answers[3]]).toEqual([0, 10, 30]);
  expect(await refusal).toMatchObject({ message: "refused -2" });
});

test.each([["22P05"], ["55P03"], ["40P01"]])(
  "an item for which Postgres refuses all (%s) fails alone: each is done again by itself, patiently, and the line does not wait for that",
  async (code) => {
    const given: [readonly number[], boolean][] = [];
    const last = Promise.withResolvers<void>();
    const work = async (items: readonly number[], patient: boolean) => {
      given.push([items, patient]);
      await settled();
      if (items.includes(3) && patient) await last.promise;
      if (items.includes(3)) throw refused(code);
      return items;
    };
    const { ask } = gather(work, { most: 10, atOnce: 1, timeoutMs });
    const [one, two, three, four] = [1, 2, 3, 4].map(ask);
    expect(await Promise.all([one, two, four])).toEqual([1, 2, 4]);
    expect(await ask(5)).toBe(5);
    const refusal = rejection(three ?? Promise.resolve());
    last.resolve();
    expect(databaseErrorCode(await refusal)).toBe(code);
    expect(given).toEqual([
      [[1], false],
      [[2, 3, 4], false],
      [[2], true],
      [[3], true],
      [[4], true],
      [[5], false],
    ]);
  },
);

test.each([
  ["CONNECTION_CLOSED", failed("CONNECTION_CLOSED")],
  ["ENETUNREACH", failed("ENETUNREACH")],
  ["an error of ours", new Error("after the commit")],
  ["57P01", refused("57P01")],
])("a failure that leaves open what was written (%s) is told to all, and nothing is done again", async (_, error) => {
  const { given, work, release, fail } = held();
  const { ask } = gather(work, { most: 10, atOnce: 1, timeoutMs });
  const answers = Promise.allSettled([1, 2, 3].map(ask));
  release(0);
  await settled();
  fail(1, error);
  expect((await answers).map((a) => (a.status === "rejected" ? (a.reason as unknown) : a.value))).toEqual([
    10,
    error,
    error,
  ]);
  expect(given).toEqual([[1], [2, 3]]);
  const later = ask(4);
  release(2);
  expect(await later).toBe(40);
});

test("what waits for too long fails as unavailable and is not done; what comes later is", async () => {
  const { given, work, release } = held();
  const { ask, waiting } = gather(work, { most: 10, atOnce: 1, timeoutMs: 20 });
  const first = ask(1);
  const late = [2, 3].map((n) => rejection(ask(n)));
  expect(waiting()).toBe(2);
  expect((await Promise.all(late)).map(databaseErrorCode)).toEqual(["POOL_TIMEOUT", "POOL_TIMEOUT"]);
  expect(waiting()).toBe(0);
  const next = ask(4);
  release(0);
  expect(await first).toBe(10);
  await settled();
  release(1);
  expect([await next, given]).toEqual([40, [[1], [4]]]);
});

test("work that forgets an item fails it instead of leaving its caller to wait", async () => {
  const { ask } = gather((items: readonly number[]) => Promise.resolve(items.slice(1)), {
    most: 10,
    atOnce: 1,
    timeoutMs,
  });
  expect(await rejection(ask(1))).toBeInstanceOf(Error);
});

test("each caller is asked in its own context, and the work runs in that of nobody", async () => {
  const who = new AsyncLocalStorage<string>();
  const asked: (string | undefined)[][] = [];
  const work = async (items: readonly number[]) => {
    asked.push([who.getStore(), ...asEachCaller(() => who.getStore())]);
    await settled();
    return items;
  };
  const { ask } = gather(work, { most: 10, atOnce: 1, timeoutMs });
  await Promise.all(["a", "b", "c"].map((name, i) => who.run(name, () => ask(i))));
  expect(asked).toEqual([
    [undefined, "a"],
    [undefined, "b", "c"],
  ]);
  expect(who.run("d", () => asEachCaller(() => who.getStore()))).toEqual(["d"]);
});

test("whatever comes when, each caller has the answer to its own question, once", async () => {
  const item = fc.record({ n: fc.integer({ min: 0, max: 20 }), wait: fc.integer({ min: 0, max: 3 }) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(item, { maxLength: 40 }),
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 1, max: 3 }),
      async (items, most, atOnce) => {
        let underWay = 0;
        const begun = new Set<number>();
        const done: number[] = [];
        const work = async (together: readonly number[]) => {
          const again = together.some((i) => begun.has(i));
          for (const i of together) begun.add(i);
          if (!again) underWay += 1;
          expect(underWay).toBeLessThanOrEqual(atOnce);
          expect(again ? together.length : 1).toBe(1);
          expect(together.length).toBeLessThanOrEqual(most);
          for (let i = 0; i < together.length % 3; i += 1) await settled();
          if (!again) underWay -= 1;
          if (together.some((i) => items[i]?.n === 13)) throw refused("23514");
          done.push(...together);
          return together.map((i) => (items[i]?.n === 7 ? new Error("refused") : items[i]?.n));
        };
        const { ask } = gather<number, number | undefined>(work, { most, atOnce, timeoutMs });
        const answers = await Promise.allSettled(
          items.map(async ({ wait }, i) => {
            for (let turn = 0; turn < wait; turn += 1) await settled();
            return await ask(i);
          }),
        );
        for (const [i, answer] of answers.entries()) {
          const n = items[i]?.n;
          expect(answer.status).toBe(n === 7 || n === 13 ? "rejected" : "fulfilled");
          if (answer.status === "fulfilled") expect(answer.value).toBe(n);
        }
        expect(done.toSorted((a, b) => a - b)).toEqual(items.flatMap(({ n }, i) => (n === 13 ? [] : [i])));
      },
    ),
    { numRuns: 200 },
  );
});

import { expect, test } from "bun:test";
import { AsyncLocalStorage } from "node:async_hooks";
import fc from "fast-check";
import { asEachCaller } from "../../src/db/callers.ts";
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

/** Lets everything go on that waits for nothing but its turn. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));
const failed = (code: string) => Object.assign(new Error("no"), { code });

test("what comes alone goes at once, and what comes meanwhile goes together, in its order", async () => {
  const { given, work, release } = held();
  const ask = gather(work, { most: 3, atOnce: 1 });
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
  const ask = gather(work, { most: 10, atOnce: 2 });
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
  const ask = gather(work, { most: 10, atOnce: 1 });
  const answers = [0, 1, -2, 3].map(ask);
  const refusal = rejection(answers[2] ?? Promise.resolve());
  release(0);
  await settled();
  release(1);
  expect([await answers[0], await answers[1], await answers[3]]).toEqual([0, 10, 30]);
  expect(await refusal).toMatchObject({ message: "refused -2" });
});

test("an item that makes the work throw fails alone: each of its neighbours is done again by itself", async () => {
  const given: number[][] = [];
  const work = async (items: readonly number[]) => {
    given.push([...items]);
    await settled();
    if (items.includes(3)) throw failed("22P05");
    return items;
  };
  const ask = gather(work, { most: 10, atOnce: 1 });
  const answers = await Promise.allSettled([1, 2, 3, 4].map(ask));
  expect(answers.map((a) => (a.status === "fulfilled" ? a.value : "failed"))).toEqual([1, 2, "failed", 4]);
  expect(given).toEqual([[1], [2, 3, 4], [2], [3], [4]]);
});

test.each([["CONNECTION_CLOSED"], ["57P01"], ["POOL_TIMEOUT"]])(
  "what fails because the database is away (%s) fails for all of them, and nothing is done again",
  async (code) => {
    const { given, work, release, fail } = held();
    const ask = gather(work, { most: 10, atOnce: 1 });
    const answers = Promise.allSettled([1, 2, 3].map(ask));
    release(0);
    await settled();
    fail(1, failed(code));
    expect((await answers).map((a) => (a.status === "rejected" ? (a.reason as unknown) : a.value))).toEqual([
      10,
      expect.objectContaining({ code }),
      expect.objectContaining({ code }),
    ]);
    expect(given).toEqual([[1], [2, 3]]);
    const later = ask(4);
    release(2);
    expect(await later).toBe(40);
  },
);

test("work that forgets an item fails it instead of leaving its caller to wait", async () => {
  const ask = gather((items: readonly number[]) => Promise.resolve(items.slice(1)), { most: 10, atOnce: 1 });
  expect(await rejection(ask(1))).toBeInstanceOf(Error);
});

test("each caller is asked in its own context, and nobody else", async () => {
  const who = new AsyncLocalStorage<string>();
  const asked: (string | undefined)[][] = [];
  const work = async (items: readonly number[]) => {
    asked.push(asEachCaller(() => who.getStore()));
    await settled();
    return items;
  };
  const ask = gather(work, { most: 10, atOnce: 1 });
  await Promise.all(["a", "b", "c"].map((name, i) => who.run(name, () => ask(i))));
  expect(asked).toEqual([["a"], ["b", "c"]]);
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
          if (together.some((i) => items[i]?.n === 13)) throw failed("23514");
          done.push(...together);
          return together.map((i) => (items[i]?.n === 7 ? new Error("refused") : items[i]?.n));
        };
        const ask = gather<number, number | undefined>(work, { most, atOnce });
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

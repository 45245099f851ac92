import { expect, test } from "bun:test";
import { createFloor } from "../../src/outbox/floor.ts";

/** The milliseconds after a look from the start that took `tookMs` at which the next one is made. */
function nextLook(tookMs: number): number {
  const floor = createFloor();
  expect(floor.next(0)).toBe(0n);
  floor.claimed(0, tookMs, 100n, true);
  for (let now = 1; ; now += 1) {
    if (floor.next(now) === 0n) return now;
    floor.claimed(now, 1, 100n, true);
  }
}

test("a look from the start gets a fiftieth of the time, but comes within 3 to 30 s: rows of a slow transaction wait for it", () => {
  expect([1, 60, 100, 400, 4000, 60_000].map(nextLook)).toEqual([3000, 3000, 5000, 20_000, 30_000, 30_000]);
});

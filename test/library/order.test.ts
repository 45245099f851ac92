import { expect, test } from "bun:test";
import fc from "fast-check";
import { between } from "../../src/library/order.ts";

const scaled = (order: string) => BigInt(order.replace(".", ""));
const order = fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n }).map((n) => {
  const digits = (n < 0n ? -n : n).toString().padStart(19, "0");
  return `${n < 0n ? "-" : ""}${digits.slice(0, -18)}.${digits.slice(-18)}`;
});

test("places rise strictly between their neighbours, or there are none", () => {
  fc.assert(
    fc.property(order, order, fc.integer({ min: 1, max: 50 }), (a, b, count) => {
      const [low, high] = scaled(a) < scaled(b) ? [a, b] : [b, a];
      const places = between(low, high, count).map(scaled);
      const room = scaled(high) - scaled(low) > BigInt(count);
      expect(places).toHaveLength(room ? count : 0);
      const line = [scaled(low), ...places, scaled(high)];
      for (const [i, place] of line.entries()) if (room && i > 0) expect(place).toBeGreaterThan(line[i - 1] ?? place);
    }),
  );
});

test("at an open end places are whole steps apart", () => {
  expect(between(undefined, undefined, 2)).toEqual(["1.000000000000000000", "2.000000000000000000"]);
  expect(between("2.5", undefined, 1)).toEqual(["3.500000000000000000"]);
  expect(between(undefined, "1", 2)).toEqual(["-1.000000000000000000", "0.000000000000000000"]);
});

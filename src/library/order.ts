/** A block's place as Postgres's numeric(36,18) writes it, such as "1.500000000000000000". */
export type Order = string;

const digits = 18;
const unit = 10n ** BigInt(digits);

function parse(order: Order): bigint {
  const [, sign = "", whole = "0", fraction = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(order) ?? [];
  const value = BigInt(whole) * unit + BigInt(fraction.padEnd(digits, "0").slice(0, digits));
  return sign === "-" ? -value : value;
}

function format(value: bigint): Order {
  const size = value < 0n ? -value : value;
  return `${value < 0n ? "-" : ""}${size / unit}.${(size % unit).toString().padStart(digits, "0")}`;
}

/**
 * `count` places in rising order after `before` and ahead of `after`, whole steps apart at an open end and evenly spread between two.
 * Empty when two neighbours have no room left: that takes some sixty halvings at one place.
 */
export function between(before: Order | undefined, after: Order | undefined, count: number): Order[] {
  const step = (i: number) => BigInt(i + 1);
  const indexes = Array.from({ length: count }, (_, i) => i);
  if (after === undefined) {
    const low = before === undefined ? 0n : parse(before);
    return indexes.map((i) => format(low + step(i) * unit));
  }
  const high = parse(after);
  if (before === undefined) return indexes.map((i) => format(high - BigInt(count - i) * unit));
  const low = parse(before);
  const parts = BigInt(count + 1);
  if (high - low < parts) return [];
  return indexes.map((i) => format(low + ((high - low) * step(i)) / parts));
}

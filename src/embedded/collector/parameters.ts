/** Values of query parameters as Jaeger, which is written in Go, reads and refuses them. */

/** A parameter that cannot be read. The message is Jaeger's. */
export class BadParameter extends Error {}

/** Each parameter can be read, and together they ask for nothing that there can be. Jaeger's storage finds that out, hence a 500. */
export class ImpossibleQuery extends Error {}

/** An integer of 64 bits, or of 32; `parser` names the Go function in the message. */
export function parseInteger(text: string, bits: 32 | 64 = 64, parser = "ParseInt"): number {
  if (!/^[+-]?\d+$/.test(text))
    throw new BadParameter(`strconv.${parser}: parsing ${JSON.stringify(text)}: invalid syntax`);
  const value = BigInt(text);
  if (value !== BigInt.asIntN(bits, value))
    throw new BadParameter(`strconv.${parser}: parsing ${JSON.stringify(text)}: value out of range`);
  return Number(value);
}

export function parseBoolean(text: string): boolean {
  if (["1", "t", "T", "true", "TRUE", "True"].includes(text)) return true;
  if (["0", "f", "F", "false", "FALSE", "False"].includes(text)) return false;
  throw new BadParameter(`strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
}

const unitMicroseconds: Readonly<Record<string, number>> = {
  ns: 0.001,
  us: 1,
  µs: 1,
  μs: 1,
  ms: 1000,
  s: 1_000_000,
  m: 60_000_000,
  h: 3_600_000_000,
};

/** A duration such as 1h2m, 1.5s or 300us, in whole microseconds. */
export function parseDuration(text: string): number {
  const fault = (what: string) => new BadParameter(`time: ${what} duration ${JSON.stringify(text)}`);
  const [, sign = "", amount = ""] = /^([+-]?)(.*)$/s.exec(text) ?? [];
  if (amount === "0") return 0;
  if (/^(\d+\.?\d*|\.\d+)$/.test(amount)) throw fault("missing unit in");
  if (!/^((\d+\.?\d*|\.\d+)[^\d.]+)+$/.test(amount)) throw fault("invalid");
  let total = 0;
  for (const [, number = "", unit = ""] of amount.matchAll(/([\d.]+)([^\d.]+)/g)) {
    const microseconds = unitMicroseconds[unit];
    if (microseconds === undefined) throw fault(`unknown unit ${JSON.stringify(unit)} in`);
    total += Number(number) * microseconds;
  }
  return Math.trunc(sign === "-" ? -total : total);
}

/** An RFC 3339 time, in microseconds since 1970. */
export function parseTime(text: string): number {
  const parts = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(text);
  const milliseconds = parts === null ? Number.NaN : Date.parse(`${parts[1]}${parts[3]}`);
  if (Number.isNaN(milliseconds))
    throw new BadParameter(`parsing time ${JSON.stringify(text)} as "2006-01-02T15:04:05.999999999Z07:00"`);
  return milliseconds * 1000 + Number((parts?.[2] ?? "").padEnd(6, "0").slice(0, 6));
}

/** Pads to 32 hex digits: Jaeger leaves out leading zeros. */
export function parseTraceId(text: string): string {
  if (text.length > 32) throw new BadParameter(`TraceID cannot be longer than 32 hex characters: ${text}`);
  if (!/^[0-9a-f]+$/i.test(text))
    throw new BadParameter(`strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`);
  return text.toLowerCase().padStart(32, "0");
}

/** Runs a parser and says in its failure which parameter it was. */
export function named<T>(parse: () => T, message: string): T {
  try {
    return parse();
  } catch (fault) {
    if (fault instanceof BadParameter) throw new BadParameter(`${message}: ${fault.message}`, { cause: fault });
    throw fault;
  }
}

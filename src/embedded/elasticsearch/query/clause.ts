import { illegalArgument, parsingException, unsupported } from "../errors.ts";
import type { Json, JsonObject } from "../json.ts";
import { show } from "../mapping.ts";
import type { Compilation, Compiled } from "./compilation.ts";

/** Compiles the body of one kind of query. Throws what Elasticsearch answers to a wrong body. */
export type Clause = (to: Compilation, body: JsonObject, boost: number, scoring: boolean) => Compiled;

/** The one field that a body names, and what it says of it. */
export function onlyField(query: string, body: JsonObject): [string, Json] {
  const [first, second] = Object.entries(body);
  if (first === undefined) throw illegalArgument("fieldName must not be null or empty");
  if (second !== undefined) {
    throw parsingException(`[${query}] query doesn't support multiple fields, found [${first[0]}] and [${second[0]}]`);
  }
  return first;
}

/** Throws for what is left of a body once all that is known was taken out. */
export function refuseRest(query: string, rest: JsonObject): void {
  const [other] = Object.keys(rest);
  if (other !== undefined) throw parsingException(`[${query}] query does not support [${other}]`);
}

/** The factor of a `boost`, 1 by default. */
export function toBoost(boost: Json | undefined): number {
  const factor = Number(boost ?? 1);
  if (Number.isFinite(factor) && factor >= 0) return factor;
  throw illegalArgument(
    `negative [boost] are not allowed in [${show(boost ?? null)}], use a value between 0 and 1 to deboost`,
  );
}

/** How many of the clauses a `minimum_should_match` requires. */
export function toMinimum(value: Json, clauses: number): number {
  const text = show(value).trim();
  const [, sign, amount, percent] = /^(-?)(\d+)(%?)$/.exec(text) ?? [];
  if (amount === undefined) throw unsupported(`the minimum_should_match [${text}]`);
  const count = percent === "%" ? Math.trunc((clauses * Number(amount)) / 100) : Number(amount);
  return sign === "-" ? Math.max(0, clauses - count) : count;
}

/** One or several, as a list. */
export function listOf(value: Json | undefined): Json[] {
  if (value === undefined || value === null) return [];
  return Array.isArray(value) ? value : [value];
}

/** A value of parsed JSON. Integers that a double cannot hold are bigints. */
export type Json = null | boolean | number | bigint | string | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

/** JSON text that goes into a reply as it is. */
export class RawJson {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** What a reply is made of. `undefined` members are left out. */
export type Reply = Json | RawJson | undefined | readonly Reply[] | { readonly [key: string]: Reply };

/** Parses JSON text, integers exact. Throws SyntaxError. */
export function parseJson(text: string): Json {
  // Sixteen digits in a row are the least that can go beyond 2^53; anything else takes the quick way.
  return /\d{16}/.test(text) ? JSON.parse(text, exactInteger) : JSON.parse(text);
}

function exactInteger(_key: string, value: Json, context?: { source?: string }): Json {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  const source = context?.source ?? "";
  return /^-?\d+$/.test(source) ? BigInt(source) : value;
}

/** Writes a reply as JSON text: bigints as digits, raw JSON as it is. */
export function stringify(value: Reply): string {
  if (value === undefined || value === null) return "null";
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "object") return JSON.stringify(value);
  if (value instanceof RawJson) return value.text;
  if (Array.isArray(value)) return `[${value.map(stringify).join(",")}]`;
  const members: string[] = [];
  for (const [key, member] of Object.entries(value)) {
    if (member !== undefined) members.push(`${JSON.stringify(key)}:${stringify(member)}`);
  }
  return `{${members.join(",")}}`;
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

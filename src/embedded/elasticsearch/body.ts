import { malformedJson, Refusal } from "./errors.ts";
import { isObject, type Json, type JsonObject, parseJson } from "./json.ts";
import { show } from "./mapping.ts";

/** The object that a request body must be. */
export function requiredObject(body: string): JsonObject {
  if (body.trim() === "") throw new Refusal(400, "parse_exception", "request body is required");
  return optionalObject(body);
}

/** The same, {} for no body. */
export function optionalObject(body: string): JsonObject {
  if (body.trim() === "") return {};
  let parsed: Json;
  try {
    parsed = parseJson(body);
  } catch (fault) {
    throw malformedJson(fault);
  }
  if (isObject(parsed)) return parsed;
  throw new Refusal(400, "parse_exception", "Failed to parse content to map");
}

/** A part of a body that must be an object, {} where it is absent. */
export function object(value: Json | undefined): JsonObject {
  if (value === undefined || value === null) return {};
  if (isObject(value)) return value;
  throw new Refusal(400, "parse_exception", `expected an object but found [${show(value)}]`);
}

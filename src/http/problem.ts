import { ValueErrorType } from "@sinclair/typebox/errors";
import { ParseError, NotFoundError as RouteNotFound, ValidationError } from "elysia";
import { isContention, isUnavailable } from "../db/failure.ts";
import { type ProblemCode, problems, WordloomError } from "../errors.ts";

/** What is wrong with one part of a request: where it is (a JSON pointer, RFC 6901) and what was expected. Never what was sent. */
export type Fault = {
  readonly in: "body" | "query" | "path";
  readonly pointer: string;
  readonly detail: string;
};

/** A failure as reported to the caller. */
export type Problem = {
  readonly code: ProblemCode;
  readonly detail: string;
  readonly faults?: readonly Fault[];
  readonly headers?: Readonly<Record<string, string>>;
};

const places: Readonly<Record<string, Fault["in"]>> = { body: "body", query: "query", params: "path" };
const faultsShown = 20;

function faultsOf(error: ValidationError): Fault[] {
  const place = places[error.type] ?? "body";
  const known = Object.keys(propertiesOf(error.validator));
  const faults = new Map<string, Fault>();
  for (const found of error.all) {
    if (!("type" in found) || faults.size === faultsShown) break;
    // A name that is not known is the caller's input too: the pointer stays at the object that holds it.
    const unknown = found.type === ValueErrorType.ObjectAdditionalProperties;
    const pointer = unknown ? found.path.split("/").slice(0, -1).join("/") : found.path;
    const detail = unknown
      ? `only these are known here: ${known.join(", ")}`
      : found.type === ValueErrorType.ObjectRequiredProperty
        ? `is required: ${found.schema.description ?? ""}`
        : found.type === ValueErrorType.ObjectMinProperties
          ? `at least one of: ${known.join(", ")}`
          : found.path === ""
            ? "must be a JSON object"
            : `must be ${found.schema.description ?? "something else"}`;
    if (!faults.has(pointer)) faults.set(pointer, { in: place, pointer, detail });
  }
  return [...faults.values()];
}

/** The fields of the schema that refused. Elysia hands over the schema or its compiled check. */
function propertiesOf(validator: unknown): object {
  const inside = (value: unknown, key: string): unknown =>
    value instanceof Object ? Reflect.get(value, key) : undefined;
  const properties = inside(inside(validator, "schema") ?? validator, "properties");
  return properties instanceof Object ? properties : {};
}

/** Maps a thrown error to a problem. Anything unexpected is INTERNAL, and none of it is disclosed. */
export function problemOf(error: unknown): Problem {
  if (error instanceof WordloomError)
    return { ...(error.status === 503 ? retriable(error.code) : { code: error.code }), detail: error.message };
  if (error instanceof ValidationError) {
    const faults = faultsOf(error);
    return {
      code: "VALIDATION_ERROR",
      detail: "See `errors` for what each part must be",
      faults,
    };
  }
  if (error instanceof ParseError) return problemOf(error.cause);
  if (error instanceof RouteNotFound) return { code: "ROUTE_NOT_FOUND", detail: problems.ROUTE_NOT_FOUND[1] };
  if (isUnavailable(error)) return retriable("DATABASE_UNAVAILABLE");
  if (isContention(error)) return retriable("DATABASE_BUSY");
  return { code: "INTERNAL", detail: "The failure was recorded under the correlation id of this answer" };
}

/** A problem that passes by itself. */
export const retriable = (code: ProblemCode): Problem => ({
  code,
  detail: problems[code][1],
  headers: { "retry-after": "1" },
});

/** RFC 9457. `type` and `title` are constant per code. */
export function problemResponse({ code, detail, faults, headers }: Problem, correlationId: string): Response {
  const [status, title] = problems[code];
  const body = {
    type: `urn:wordloom:problem:${code}`,
    title,
    status,
    detail,
    code,
    correlation_id: correlationId,
    ...(faults === undefined ? {} : { errors: faults }),
  };
  return new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/problem+json", ...headers },
  });
}

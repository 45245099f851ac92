import { Kind, type Static, type TSchema, Type, TypeRegistry } from "@sinclair/typebox";

/** The building blocks of request schemas. `description` says what a field accepts: a refused request is answered with it, never with its own input. */

type TextRule = { minLength?: number; maxLength?: number; multiline?: boolean };

const unprintable = /\p{Cc}/u;

// What TypeBox calls a string counts UTF-16 units and admits what Postgres refuses: NUL and halves of surrogate pairs.
TypeRegistry.Set<TextRule>(
  "Text",
  ({ minLength = 0, maxLength = Number.POSITIVE_INFINITY, multiline = false }, value) => {
    if (typeof value !== "string" || !value.isWellFormed() || value.includes("\0")) return false;
    if (!multiline && (unprintable.test(value) || (minLength > 0 && value.trim() === ""))) return false;
    if (value.length > 2 * maxLength) return false;
    const characters =
      value.length <= maxLength && value.length >= 2 * minLength ? undefined : Array.from(value).length;
    return characters === undefined || (characters >= minLength && characters <= maxLength);
  },
);

const text = (rule: TextRule, description: string) =>
  Type.Unsafe<string>({ [Kind]: "Text", type: "string", ...rule, description });

/** One line of `least` to `most` characters (code points), not blank, without control characters. */
export const line = (least: number, most: number) =>
  text({ minLength: least, maxLength: most }, `one line of ${least} to ${most} characters`);

/** Text of any number of lines, of `least` to `most` characters (code points). */
export const prose = (most?: number, least = 0) =>
  text(
    { multiline: true, minLength: least, ...(most === undefined ? {} : { maxLength: most }) },
    `${most === undefined ? "text" : `text of ${least} to ${most} characters`}, without NUL or unpaired surrogates`,
  );

const hex = "[0-9a-fA-F]";
export const uuid = () => Type.String({ pattern: `^${hex}{8}(-${hex}{4}){3}-${hex}{12}$`, description: "a UUID" });
export const color = () =>
  Type.String({ pattern: `^#(${hex}{6}|${hex}{8})$`, description: "a colour as #RRGGBB or #RRGGBBAA" });

TypeRegistry.Set<{ minimum: number; maximum: number }>(
  "WholeNumber",
  ({ minimum, maximum }, value) =>
    typeof value === "string" && /^\d{1,15}$/.test(value) && Number(value) >= minimum && Number(value) <= maximum,
);

/** A whole number as a query writes it: in digits, still a string. */
export const wholeNumber = (minimum: number, maximum: number) =>
  Type.Unsafe<string>({
    [Kind]: "WholeNumber",
    type: "integer",
    minimum,
    maximum,
    description: `a whole number from ${minimum} to ${maximum}`,
  });

export const oneOf = <const T extends readonly string[]>(values: T) =>
  Type.Unsafe<T[number]>(
    Type.Union(
      values.map((v) => Type.Literal(v)),
      { description: `one of ${values.join(", ")}` },
    ),
  );

export const optional = <T extends TSchema>(schema: T) =>
  Type.Optional(Type.Unsafe<Static<T>>({ ...schema, description: schema.description ?? "" }));
/** May be left out, or null. */
export const nullable = <T extends TSchema>(schema: T) =>
  Type.Optional(Type.Union([schema, Type.Null()], { description: `${schema.description ?? ""}, or null` }));

/** What any query may hold beside its own. */
export const everyQuery = {
  // The correlation id, for those who cannot set a header.
  cid: optional(prose()),
  // What callers make up so that no cache in between answers.
  cache_bust: optional(prose()),
};

/** A request's fields, and no others. */
export const fields = <T extends Record<string, TSchema>>(properties: T, options: { minProperties?: number } = {}) =>
  Type.Object(properties, { additionalProperties: false, ...options });

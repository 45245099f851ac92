import { Type } from "@sinclair/typebox";
import type { formats } from "./formats.ts";

/** What a variable has besides its type: the group it is listed in, and whether its value is hidden. */
export type Extra = { readonly group: string; readonly secret?: true };

export const integer = (group: string, description: string, minimum: number, maximum: number, fallback?: number) =>
  Type.Integer({ minimum, maximum, description, group, ...(fallback === undefined ? {} : { default: fallback }) });
export const decimal = (group: string, description: string, minimum: number, maximum: number, fallback?: number) =>
  Type.Number({ minimum, maximum, description, group, ...(fallback === undefined ? {} : { default: fallback }) });
export const flag = (group: string, description: string, fallback: boolean) =>
  Type.Boolean({ description, group, default: fallback });
export const text = (group: string, description: string, fallback?: string, pattern = "\\S") =>
  Type.String({ description, group, pattern, ...(fallback === undefined ? {} : { default: fallback }) });
export const secret = (group: string, description: string) =>
  Type.String({ description, group, pattern: "\\S", secret: true });
export const choice = <const T extends readonly string[]>(
  group: string,
  description: string,
  values: T,
  fallback?: T[number],
  /** Other words for some of them. */
  synonyms?: Readonly<Record<string, T[number]>>,
) =>
  Type.Unsafe<T[number]>(
    Type.Union(
      values.map((v) => Type.Literal(v)),
      {
        type: "string",
        enum: [...values],
        description,
        group,
        ...(fallback === undefined ? {} : { default: fallback }),
        ...(synonyms === undefined ? {} : { synonyms }),
      },
    ),
  );

export const port = (group: string, description: string, fallback?: number) =>
  integer(group, description, 0, 65_535, fallback);

export const formatted = (group: string, description: string, format: keyof typeof formats) =>
  Type.String({ description, group, format, secret: true });

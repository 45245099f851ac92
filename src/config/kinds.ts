import { Type } from "@sinclair/typebox";
import type { formats } from "./formats.ts";

/** What a variable has besides its type: the group it is listed in, whether its value is hidden, and its alias. */
export type Extra = {
  readonly group: string;
  readonly secret?: true;
  /** Another name, read when the first is unset. */
  readonly alias?: string;
};

type Range = Pick<Extra, "alias"> & { readonly min: number; readonly max: number; readonly default?: number };

const bounds = ({ min, max, ...rest }: Range) => ({ minimum: min, maximum: max, ...rest });

export const integer = (group: string, description: string, range: Range) =>
  Type.Integer({ ...bounds(range), description, group });
export const decimal = (group: string, description: string, range: Range) =>
  Type.Number({ ...bounds(range), description, group });
export const flag = (group: string, description: string, fallback?: boolean) =>
  Type.Boolean({ description, group, ...(fallback === undefined ? {} : { default: fallback }) });
export const text = (
  group: string,
  description: string,
  options: { readonly default?: string; readonly pattern?: string } = {},
) => Type.String({ description, group, pattern: "\\S", ...options });
export const secret = (group: string, description: string) =>
  Type.String({ description, group, pattern: "\\S", secret: true });
/** `synonyms` are other words for some of the values. */
export const choice = <const T extends readonly string[]>(
  group: string,
  description: string,
  values: T,
  options: { readonly default?: T[number]; readonly synonyms?: Readonly<Record<string, T[number]>> } = {},
) =>
  Type.Unsafe<T[number]>(
    Type.Union(
      values.map((v) => Type.Literal(v)),
      { type: "string", enum: [...values], description, group, ...options },
    ),
  );

export const port = (group: string, description: string, fallback?: number) =>
  integer(group, description, { min: 0, max: 65_535, ...(fallback === undefined ? {} : { default: fallback }) });

/** Text in a format, which may hold a secret. */
export const formatted = (group: string, description: string, format: keyof typeof formats) =>
  Type.String({ description, group, format, secret: true });

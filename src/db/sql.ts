import { type SQL, sql } from "drizzle-orm";

const types = { bigint: sql`bigint[]`, text: sql`text[]`, uuid: sql`uuid[]` };

/** A list as one parameter: the statement is the same however long it is, and is prepared once. */
export function array(type: keyof typeof types, values: readonly (bigint | string)[]): SQL {
  const items = type === "text" ? values.map((value) => `"${String(value).replace(/["\\]/g, "\\$&")}"`) : values;
  return sql`${`{${items.join(",")}}`}::${types[type]}`;
}

/** A time span, parts of a millisecond too. */
export const milliseconds = (count: number): SQL => sql`${count}::float8 * interval '1 millisecond'`;

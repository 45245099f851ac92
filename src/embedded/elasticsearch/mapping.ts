import { analyzers } from "./analysis/cjk.ts";
import { type Cause, illegalArgument, Refusal } from "./errors.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";

const numericTypes = ["long", "integer", "float", "double"] as const;
const fieldTypes = ["keyword", "text", "boolean", "date", ...numericTypes] as const;
export type FieldType = (typeof fieldTypes)[number];

/** One field of a mapping. `ordinal` names its column for good, so that a later field never moves an earlier one. */
export interface Field {
  readonly name: string;
  readonly type: FieldType;
  readonly ordinal: number;
  readonly indexed: boolean;
  readonly analyzer: string;
  readonly ignoreAbove: number;
  /** The definition as the client wrote it; GET _mapping gives it back. */
  readonly definition: JsonObject;
}

export type Dynamic = "strict" | "true" | "false";

export interface Mapping {
  readonly dynamic: Dynamic | undefined;
  /** Notes of the client's, kept as they are. */
  readonly meta: JsonObject | undefined;
  readonly fields: ReadonlyMap<string, Field>;
}

export const emptyMapping: Mapping = { dynamic: undefined, meta: undefined, fields: new Map() };

/** Parameters that change nothing here, and may therefore be accepted, come as `true`. */
const parameters: Record<FieldType, Record<string, "boolean" | "string" | "integer">> = {
  keyword: { index: "boolean", ignore_above: "integer" },
  text: { index: "boolean", analyzer: "string" },
  boolean: { index: "boolean" },
  date: { index: "boolean" },
  long: { index: "boolean" },
  integer: { index: "boolean" },
  float: { index: "boolean" },
  double: { index: "boolean" },
};

/** `current` with `definition` merged into it. Throws the refusals that Elasticsearch gives for a bad mapping. */
export function mergeMapping(current: Mapping, definition: JsonObject, creating: boolean): Mapping {
  const fields = new Map(current.fields);
  let { dynamic, meta } = current;
  for (const [key, value] of Object.entries(definition)) {
    if (key === "dynamic") {
      dynamic = parseDynamic(value);
    } else if (key === "_meta" && isObject(value)) {
      meta = value;
    } else if (key === "properties" && isObject(value)) {
      for (const [name, field] of Object.entries(value)) {
        const parsed = parseField(name, field, fields.get(name)?.ordinal ?? fields.size);
        const existing = fields.get(name);
        if (existing !== undefined) checkSame(existing, parsed);
        fields.set(name, parsed);
      }
    } else {
      throw badMapping(`Root mapping definition has unsupported parameters:  [${key} : ${show(value)}]`);
    }
  }
  if (creating) {
    for (const field of fields.values()) {
      if (field.name.includes(".")) throw badMapping(`field name [${field.name}] is not supported: no objects here`);
    }
  }
  return { dynamic, meta, fields };
}

export function showMapping(mapping: Mapping): JsonObject {
  const properties: JsonObject = {};
  for (const name of [...mapping.fields.keys()].sort()) properties[name] = mapping.fields.get(name)?.definition ?? {};
  return {
    ...(mapping.dynamic === undefined ? {} : { dynamic: mapping.dynamic }),
    ...(mapping.meta === undefined ? {} : { _meta: mapping.meta }),
    ...(mapping.fields.size === 0 ? {} : { properties }),
  };
}

function parseDynamic(value: Json): Dynamic {
  if (value === "strict" || value === "true" || value === "false") return value;
  if (typeof value === "boolean") return value ? "true" : "false";
  const cause: Cause = {
    type: "illegal_argument_exception",
    reason: "Could not convert [dynamic.dynamic] to boolean",
    caused_by: {
      type: "illegal_argument_exception",
      reason: `Failed to parse value [${show(value)}] as only [true] or [false] are allowed.`,
    },
  };
  throw badMapping(cause.reason ?? "", cause);
}

function parseField(name: string, definition: Json, ordinal: number): Field {
  if (!isObject(definition)) {
    const java = typeof definition === "string" ? "java.lang.String" : "java.lang.Object";
    throw badMapping(`Expected map for property [fields] on field [${name}] but got a class ${java}`);
  }
  const { type } = definition;
  if (type === undefined) throw badMapping(`No type specified for field [${name}]`);
  if (typeof type !== "string" || !isFieldType(type)) {
    throw badMapping(
      `The mapper type [${show(type)}] declared on field [${name}] does not exist. It might have been created within a future version or requires a plugin to be installed. Check the documentation.`,
    );
  }
  for (const [key, value] of Object.entries(definition)) {
    if (key === "type") continue;
    const expected = parameters[type][key];
    if (expected === undefined) {
      throw badMapping(`unknown parameter [${key}] on mapper [${name}] of type [${type}]`);
    }
    if (expected === "integer" ? !Number.isInteger(value) : typeof value !== expected) {
      throw badMapping(`Could not convert [${name}.${key}] to ${expected}`);
    }
  }
  const analyzer = typeof definition["analyzer"] === "string" ? definition["analyzer"] : "default";
  if (!analyzers.has(analyzer)) {
    const reason = `analyzer [${analyzer}] has not been configured in mappings`;
    throw badMapping(reason, { type: "illegal_argument_exception", reason });
  }
  const above = definition["ignore_above"];
  return {
    name,
    type,
    ordinal,
    indexed: definition["index"] !== false,
    analyzer,
    ignoreAbove: typeof above === "number" ? above : Number.POSITIVE_INFINITY,
    definition: { type, ...definition },
  };
}

function checkSame(existing: Field, wanted: Field): void {
  const { name } = existing;
  if (existing.type !== wanted.type) {
    throw illegalArgument(`mapper [${name}] cannot be changed from type [${existing.type}] to [${wanted.type}]`);
  }
  const faults: string[] = [];
  if (existing.analyzer !== wanted.analyzer) {
    faults.push(`Cannot update parameter [analyzer] from [${existing.analyzer}] to [${wanted.analyzer}]`);
  }
  if (existing.indexed !== wanted.indexed) {
    faults.push(`Cannot update parameter [index] from [${existing.indexed}] to [${wanted.indexed}]`);
  }
  if (faults.length > 0) {
    throw illegalArgument(`Mapper for [${name}] conflicts with existing mapper:\n\t${faults.join("\n\t")}`);
  }
}

function badMapping(reason: string, cause: Cause = { type: "mapper_parsing_exception", reason }): Refusal {
  const wrapped = `Failed to parse mapping: ${reason}`;
  const root = cause.type === "mapper_parsing_exception" ? reason : wrapped;
  return new Refusal(400, "mapper_parsing_exception", wrapped, {
    root_cause: [{ type: "mapper_parsing_exception", reason: root }],
    caused_by: cause,
  });
}

function isFieldType(type: string): type is FieldType {
  return (fieldTypes as readonly string[]).includes(type);
}

/** A value as Java prints it inside a message. */
export function show(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(show).join(", ")}]`;
  if (isObject(value)) {
    const members = Object.entries(value).map(([key, member]) => `${key}=${show(member)}`);
    return `{${members.join(", ")}}`;
  }
  return String(value);
}

import { analyzers } from "./analysis/cjk.ts";
import { type Cause, Refusal } from "./errors.ts";
import { isObject, type Json, type JsonObject, parseJson } from "./json.ts";
import { type Field, type Mapping, show } from "./mapping.ts";
import { BadValue, toValue, type Value } from "./values.ts";

/** A document as it is stored: values by field, and for text the words that the analyzer made of it. */
export interface ParsedDocument {
  readonly values: ReadonlyMap<string, Value | Buffer | null>;
  readonly words: ReadonlyMap<string, string[]>;
}

/** A keyword longer than this cannot be indexed (Lucene's limit on a term), in UTF-8 bytes. */
const maxTermBytes = 32_766;

/** Reads a document by its mapping. Throws the refusal that Elasticsearch gives to the document, naming field and id. */
export function parseDocument(mapping: Mapping, id: string, source: string): ParsedDocument {
  const document = parseSource(source);
  const values = new Map<string, Value | Buffer | null>();
  const words = new Map<string, string[]>();
  for (const [name, value] of Object.entries(document)) {
    const field = mapping.fields.get(name);
    if (field === undefined) {
      checkUnmapped(mapping, name, value, id, source);
      continue;
    }
    const found = flatten(value).flatMap((item) => {
      const parsed = fit(field, item, id, source);
      return parsed === undefined ? [] : [parsed];
    });
    if (found.length === 0) continue;
    if (field.type !== "text") values.set(name, column(found));
    else if (field.indexed)
      words.set(
        name,
        found.flatMap((text) => analyze(field, String(text))),
      );
  }
  return { values, words };
}

function parseSource(source: string) {
  let document: Json;
  try {
    document = parseJson(source);
  } catch (fault) {
    const reason = `[1:1] ${fault instanceof Error ? fault.message : String(fault)}`;
    throw new Refusal(400, "document_parsing_exception", `[1:1] failed to parse: ${reason}`, {
      caused_by: {
        type: "x_content_parse_exception",
        reason,
        caused_by: { type: "json_parse_exception", reason: reason.slice("[1:1] ".length) },
      },
    });
  }
  if (isObject(document)) {
    checkDuplicates(document, source);
    return document;
  }
  throw new Refusal(400, "document_parsing_exception", "Malformed content, must start with an object");
}

/** JSON.parse keeps the last of two members of one name; Elasticsearch refuses them. */
function checkDuplicates(document: JsonObject, source: string): void {
  const expected = countMembers(document);
  // As written by most, each member has one `":`; text that holds the sign itself is counted with more care below.
  let signs = 0;
  for (let at = source.indexOf('":'); at >= 0; at = source.indexOf('":', at + 2)) signs += 1;
  if (signs === expected && !/"\s+:/.test(source)) return;
  const written = new Map<string, number>();
  let members = 0;
  for (const [, name, colon] of source.matchAll(/"((?:[^"\\]|\\.)*)"(\s*:)?/g)) {
    if (colon === undefined || name === undefined) continue;
    members += 1;
    written.set(name, (written.get(name) ?? 0) + 1);
  }
  if (members === expected) return;
  const twice = [...written].find(([, times]) => times > 1)?.[0] ?? "";
  const reason = `[1:${columnOf(source, twice)}] Duplicate field '${twice}'`;
  throw new Refusal(400, "document_parsing_exception", `[1:1] failed to parse: ${reason}`, {
    caused_by: { type: "x_content_parse_exception", reason },
  });
}

function countMembers(value: Json): number {
  if (Array.isArray(value)) return value.reduce((count: number, item) => count + countMembers(item), 0);
  if (!isObject(value)) return 0;
  return Object.values(value).reduce((count: number, item) => count + 1 + countMembers(item), 0);
}

function fit(field: Field, value: Json, id: string, source: string): Value | undefined {
  const refuse = (cause: Cause) =>
    new Refusal(
      400,
      "document_parsing_exception",
      `[1:${columnOf(source, field.name)}] failed to parse field [${field.name}] of type [${field.type}] in document with id '${id}'. Preview of field's value: '${show(value)}'`,
      { caused_by: cause },
    );
  let fitted: Value | undefined;
  try {
    fitted = toValue(field.type, value);
  } catch (fault) {
    if (fault instanceof BadValue) throw refuse(fault.failure);
    throw fault;
  }
  if (field.type !== "keyword" || typeof fitted !== "string") return fitted;
  if (fitted.length > field.ignoreAbove) return undefined;
  // A UTF-16 unit is at most three bytes.
  if (fitted.length * 3 > maxTermBytes && Buffer.byteLength(fitted) > maxTermBytes && field.indexed) {
    throw refuse({
      type: "illegal_argument_exception",
      reason: `Document contains at least one immense term in field="${field.name}" (whose UTF8 encoding is longer than the max length ${maxTermBytes}), all of which were skipped.`,
    });
  }
  return fitted;
}

function checkUnmapped(mapping: Mapping, name: string, value: Json, id: string, source: string): void {
  const at = columnOf(source, name);
  const refuse = (type: string, reason: string, cause?: Cause) =>
    new Refusal(400, type, reason, cause ? { caused_by: cause } : {});
  if (name === "") {
    const reason = "field name cannot be an empty string";
    throw refuse("document_parsing_exception", `[1:${at}] failed to parse: ${reason}`, {
      type: "illegal_argument_exception",
      reason,
    });
  }
  if (name === "_id" || name === "_index" || name === "_source" || name === "_version") {
    const reason = `[1:${at}] Field [${name}] is a metadata field and cannot be added inside a document. Use the index API request parameters.`;
    throw refuse(
      "document_parsing_exception",
      `[1:${at}] failed to parse field [${name}] of type [${name}] in document with id '${id}'. Preview of field's value: '${show(value)}'`,
      { type: "document_parsing_exception", reason },
    );
  }
  const [top = name] = name.split(".");
  const parent = mapping.fields.get(top);
  if (parent !== undefined) {
    throw refuse(
      "document_parsing_exception",
      `[1:${at}] failed to parse field [${top}] of type [${parent.type}] in document with id '${id}'. Preview of field's value: '${show({ [name.slice(top.length + 1)]: value })}'`,
      { type: "illegal_state_exception", reason: "Can't get text on a START_OBJECT" },
    );
  }
  if (mapping.dynamic === "strict") {
    throw refuse(
      "strict_dynamic_mapping_exception",
      `[1:${at}] mapping set to strict, dynamic introduction of [${top}] within [_doc] is not allowed`,
    );
  }
  if (mapping.dynamic !== "false") {
    throw refuse(
      "document_parsing_exception",
      `[1:${at}] field [${name}] is not in the mapping, and dynamic mapping is not supported by the embedded engine`,
    );
  }
}

/** Arrays hold values of the field like a single one does, at any depth; nulls are no values. */
function flatten(value: Json): Json[] {
  if (value === null) return [];
  return Array.isArray(value) ? value.flatMap(flatten) : [value];
}

/** One value as it is; several as JSON in a blob, which no single value is. */
function column(values: readonly Value[]): Value | Buffer | null {
  const [first = null] = values;
  if (values.length < 2) return first;
  const items = values.map((value) => (typeof value === "bigint" ? value.toString() : JSON.stringify(value)));
  return Buffer.from(`[${items.join(",")}]`);
}

function analyze(field: Field, text: string): string[] {
  return (analyzers.get(field.analyzer)?.(text) ?? []).map(({ token }) => token);
}

/** The place of a field's value in the source, counted from 1, as Elasticsearch names it. */
function columnOf(source: string, name: string): number {
  const key = JSON.stringify(name);
  const at = source.indexOf(key);
  if (at < 0) return 1;
  const value = /^\s*:\s*/.exec(source.slice(at + key.length));
  return at + key.length + (value?.[0].length ?? 0) + 1;
}

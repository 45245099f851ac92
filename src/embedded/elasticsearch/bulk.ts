import { type Cause, illegalArgument, invalidRequest, malformedJson, Refusal, unsupported } from "./errors.ts";
import { isObject, type Json, parseJson, type Reply, stringify } from "./json.ts";
import { show } from "./mapping.ts";
import { writeIndex } from "./names.ts";
import { blockOf } from "./settings.ts";
import { type Index, type Store, saveIndex } from "./store.ts";
import { countWords } from "./tables.ts";
import { type VersionType, type Write, write } from "./write.ts";

interface Action extends Write {
  readonly index: string;
  readonly requireAlias: boolean;
}

export interface BulkDefaults {
  readonly index: string | undefined;
  readonly requireAlias: boolean;
  readonly refresh: boolean;
}

const maxIdBytes = 512;
const maxLong = 2n ** 63n - 1n;

/**
 * POST /_bulk: every item in its order, in one transaction. The reply has one result for each, whatever became of it;
 * only a request that cannot be read is refused as a whole.
 */
export function bulk(store: Store, body: string, defaults: BulkDefaults): string {
  const started = performance.now();
  const actions = parseBulk(body, defaults);
  const now = Date.now();
  const touched = new Map<Index, bigint>();
  let errors = false;
  const items: string[] = [];
  const runItems = store.db.transaction(() => {
    for (const action of actions) {
      const item = runItem(store, action, defaults.refresh, now, touched);
      errors ||= item.failed;
      items.push(item.text);
    }
    for (const index of touched.keys()) saveIndex(store.db, index);
  });
  try {
    runItems.immediate();
  } catch (cause) {
    for (const [index, seq] of touched) {
      index.nextSeq = seq;
      index.words = countWords(store.db, index);
    }
    throw cause;
  }
  return `{"errors":${errors},"took":${Math.round(performance.now() - started)},"items":[${items.join(",")}]}`;
}

function runItem(store: Store, action: Action, refresh: boolean, now: number, touched: Map<Index, bigint>) {
  let name = action.index;
  try {
    if (action.id === "") throw illegalArgument("if _id is specified it must not be empty");
    // A delete may name the index itself: the flag guards against making one, which a delete never does.
    const index = writeIndex(store, name, action.requireAlias && action.op !== "delete");
    const block = blockOf(index, "write");
    if (block !== undefined) throw block;
    name = index.name;
    if (!touched.has(index)) touched.set(index, index.nextSeq);
    const { result, version, seq } = write(store.db, index, action, now);
    const status = result === "created" ? 201 : result === "not_found" ? 404 : 200;
    const forced = refresh ? '"forced_refresh":true,' : "";
    const text = `{"${action.op}":{"_index":${JSON.stringify(name)},"_id":${JSON.stringify(action.id)},"_version":${version},"result":"${result}",${forced}"_shards":{"total":1,"successful":1,"failed":0},"_seq_no":${seq},"_primary_term":1,"status":${status}}}`;
    return { failed: false, text };
  } catch (fault) {
    if (!(fault instanceof Refusal)) throw fault;
    const { root_cause: _, ...error } = fault.error;
    const reply: Reply = { [action.op]: { _index: name, _id: action.id, status: fault.status, error } };
    return { failed: true, text: stringify(reply) };
  }
}

/** Reads the lines of a bulk body. Throws for the whole request when a line is not what the format asks for. */
function parseBulk(body: string, defaults: BulkDefaults): Action[] {
  if (body.length === 0) throw new Refusal(400, "parse_exception", "request body is required");
  if (!body.endsWith("\n")) throw illegalArgument("The bulk request must be terminated by a newline [\\n]");
  const lines = body.split("\n");
  lines.pop();
  const actions: Action[] = [];
  const faults: string[] = [];
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] ?? "";
    if (line.trim() === "") continue;
    const header = parseHeader(line, i + 1, defaults);
    if (header.op === "delete") {
      checkAction(header, faults);
      actions.push(header);
      continue;
    }
    const source = lines[i + 1];
    if (source === undefined) break;
    i += 1;
    const action = { ...header, source };
    checkAction(action, faults);
    actions.push(action);
  }
  if (actions.length === 0) throw invalidRequest("no requests added");
  if (faults.length > 0) throw invalidRequest(...faults);
  return actions;
}

function parseHeader(line: string, number: number, defaults: BulkDefaults): Action {
  const malformed = (what: string) => illegalArgument(`Malformed action/metadata line [${number}], ${what}`);
  let header: Json;
  try {
    header = parseJson(line);
  } catch (fault) {
    throw malformedJson(fault);
  }
  if (!isObject(header)) throw malformed(`expected START_OBJECT but found [${tokenName(header)}]`);
  const [first, second] = Object.entries(header);
  if (first === undefined) throw malformed("expected FIELD_NAME but found [END_OBJECT]");
  const [op, options] = first;
  if (op === "update") throw unsupported("the bulk action [update]");
  if (op !== "index" && op !== "create" && op !== "delete") {
    throw malformed(`expected field [create], [delete], [index] or [update] but found [${op}]`);
  }
  if (!isObject(options)) throw malformed(`expected START_OBJECT or END_OBJECT but found [${tokenName(options)}]`);
  if (second !== undefined) throw malformed("expected END_OBJECT but found [FIELD_NAME]");
  let index = defaults.index;
  let id: string | undefined;
  let version: bigint | undefined;
  let versionType: VersionType = "internal";
  let { requireAlias } = defaults;
  for (const [key, value] of Object.entries(options)) {
    if (key === "_index") index = show(value);
    else if (key === "_id") id = value === null ? undefined : show(value);
    else if (key === "version") version = toVersion(value);
    else if (key === "version_type") versionType = toVersionType(value);
    else if (key === "require_alias") requireAlias = value === true || value === "true";
    else if (knownOptions.has(key)) throw unsupported(`the bulk option [${key}]`);
    else throw illegalArgument(`Action/metadata line [${number}] contains an unknown parameter [${key}]`);
  }
  return { op, index: index ?? "", id: id ?? automaticId(op), version, versionType, requireAlias, source: "" };
}

/** Elasticsearch knows them, Wordloom has no use for them. */
const knownOptions = new Set(
  `routing if_seq_no if_primary_term pipeline dynamic_templates retry_on_conflict _source op_type
  list_executed_pipelines require_data_stream`.split(/\s+/),
);

function checkAction({ op, index, id, version, versionType }: Action, faults: string[]): void {
  if (index === "") faults.push("index is missing");
  if (op === "delete" && id === missingId) faults.push("id is missing");
  if (op === "create") {
    if (versionType !== "internal") {
      faults.push("create operations only support internal versioning. use index instead");
    } else if (version !== undefined)
      faults.push("create operations do not support explicit versions. use index instead");
  } else if (versionType === "internal" && version !== undefined) {
    faults.push(
      "internal versioning can not be used for optimistic concurrency control. Please use `if_seq_no` and `if_primary_term` instead",
    );
  } else if (versionType !== "internal" && (version === undefined || version < 0n)) {
    faults.push(`illegal version value [${version ?? -3n}] for version type [${versionType.toUpperCase()}]`);
  }
  const bytes = Buffer.byteLength(id);
  if (bytes > maxIdBytes) {
    faults.push(`id [${id}] is too long, must be no longer than ${maxIdBytes} bytes but was: ${bytes}`);
  }
}

/** No id can hold it: JSON has no way to write half a surrogate pair that stays one in UTF-8. */
const missingId = "\ud800";

function automaticId(op: Action["op"]): string {
  if (op === "delete") return missingId;
  return Buffer.from(crypto.getRandomValues(new Uint8Array(15))).toString("base64url");
}

function toVersion(value: Json): bigint {
  const text = show(value);
  if (!/^-?\d+$/.test(text)) throw illegalArgument(`For input string: "${text}"`);
  const version = BigInt(text);
  if (version <= maxLong) return version;
  const reason = `[1:1] Numeric value (${text}) out of range of long (${-maxLong - 1n} - ${maxLong})`;
  const cause: Cause = { type: "input_coercion_exception", reason };
  throw new Refusal(400, "x_content_parse_exception", reason, { caused_by: cause });
}

function toVersionType(value: Json): VersionType {
  if (value === "internal" || value === "external" || value === "external_gte") return value;
  if (value === "external_gt") return "external";
  throw illegalArgument(`No version type match [${show(value)}]`);
}

function tokenName(value: Json | undefined): string {
  if (Array.isArray(value)) return "START_ARRAY";
  if (typeof value === "string") return "VALUE_STRING";
  if (typeof value === "boolean") return value ? "VALUE_TRUE" : "VALUE_FALSE";
  return value === null ? "VALUE_NULL" : "VALUE_NUMBER";
}

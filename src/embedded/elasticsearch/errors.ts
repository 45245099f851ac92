import type { Reply } from "./json.ts";

/** What went wrong, in the words of the Elasticsearch API: type, reason, and whatever that type adds. */
export interface Cause {
  readonly type: string;
  readonly reason: string | null;
  readonly [detail: string]: Reply;
}

/** A request (or one item of a bulk) that is refused: HTTP status and the error object of the reply. */
export class Refusal extends Error {
  readonly status: number;
  readonly error: Cause;

  constructor(status: number, type: string, reason: string, details: { [detail: string]: Reply } = {}) {
    super(`${type}: ${reason}`);
    this.status = status;
    this.error = { type, reason, ...details };
  }
}

/** The body of an error reply. */
export function errorBody({ status, error }: Refusal): Reply {
  const { root_cause, ...rest } = error;
  if (root_cause !== undefined) return { error: { root_cause, ...rest }, status };
  const { caused_by: _, ...root } = error;
  return { error: { root_cause: [root], ...rest }, status };
}

export const illegalArgument = (reason: string, causedBy?: Cause) =>
  new Refusal(400, "illegal_argument_exception", reason, causedBy ? { caused_by: causedBy } : {});

export const invalidRequest = (...faults: readonly string[]) =>
  new Refusal(
    400,
    "action_request_validation_exception",
    `Validation Failed: ${faults.map((fault, i) => `${i + 1}: ${fault};`).join("")}`,
  );

export const parsingException = (reason: string, details: { [detail: string]: Reply } = {}) =>
  new Refusal(400, "parsing_exception", reason, { line: 1, col: 1, ...details });

/** Elasticsearch knows it, this engine does not: refused rather than passed over in silence. */
export const unsupported = (what: string) => parsingException(`${what} is not supported by the embedded engine`);

export const malformedJson = (fault: unknown) => {
  const reason = `[1:1] ${fault instanceof Error ? fault.message : String(fault)}`;
  return new Refusal(400, "x_content_parse_exception", reason, { caused_by: { type: "json_parse_exception", reason } });
};

export const indexNotFound = (index: string) =>
  new Refusal(404, "index_not_found_exception", `no such index [${index}]`, {
    "resource.type": "index_or_alias",
    "resource.id": index,
    index_uuid: "_na_",
    index,
  });

/** A failure of the query itself, wrapped as the coordinating node wraps what its shard said. */
export function shardFailure(index: { name: string; uuid: string }, status: number, cause: Cause): Refusal {
  return new Refusal(status, "search_phase_execution_exception", "all shards failed", {
    root_cause: [cause.type === "query_shard_exception" ? withoutCause(cause) : cause],
    phase: "query",
    grouped: true,
    failed_shards: [{ shard: 0, index: index.name, node: "embedded", reason: cause }],
    ...(cause.type === "illegal_argument_exception" ? { caused_by: { ...cause, caused_by: cause } } : {}),
  });
}

/** A query that this index cannot run: a word for a number, a field that is not indexed. */
export const queryShardException = (index: { name: string; uuid: string }, reason: string, causedBy?: Cause) =>
  shardFailure(index, 400, {
    type: "query_shard_exception",
    reason,
    index_uuid: index.uuid,
    index: index.name,
    ...(causedBy ? { caused_by: causedBy } : {}),
  });

function withoutCause(cause: Cause): Reply {
  const { caused_by: _, ...rest } = cause;
  return rest;
}

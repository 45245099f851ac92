import type { SQLQueryBindings } from "bun:sqlite";
import { parsingException, shardFailure } from "./errors.ts";
import { highlight } from "./highlight.ts";
import { isObject, type JsonObject, parseJson, type Reply } from "./json.ts";
import { bind, type Compilation, type Compiled, startCompilation } from "./query/compilation.ts";
import { compile } from "./query/compile.ts";
import type { SearchRequest } from "./search-request.ts";
import type { Snapshot } from "./snapshot.ts";
import { after, byScore, byWriting, orderBy, parseSort, type SortKey, showFloat } from "./sort.ts";
import { showSource } from "./source.ts";
import type { Value } from "./values.ts";

/** Runs a search on a snapshot. `pitId` stands in the reply, and adds the order of writing as the last sort key. */
export function search(snapshot: Snapshot, request: SearchRequest, pitId: string | undefined): Reply {
  const started = performance.now();
  const { index, db } = snapshot;
  const { from, size } = request;
  checkWindow(snapshot, from + size);
  const wanted = request.sort === undefined ? [] : parseSort(request.sort, index);
  // By score alone is how hits come anyway, and is answered as if it had not been asked for.
  const keys = wanted.length === 1 && wanted[0]?.name === "_score" && wanted[0].descending ? [] : wanted;
  const sorted = keys.length > 0;
  const tieBroken = pitId !== undefined && keys.length > 0 && keys.every(({ name }) => name !== "_shard_doc");
  const shown = tieBroken ? [...keys, byWriting] : keys;
  const scored = !sorted || request.trackScores || keys.some(({ name }) => name === "_score");
  const to = startCompilation(snapshot);
  const compiled = compile(to, request.query, 1, scored);
  // The count is of the query alone: search_after and paging leave it as it is.
  const counting = [...to.parameters];
  const page = size === 0 ? [] : rowsOf(snapshot, to, compiled, request, shown);
  const total = request.countUpTo < 0 ? undefined : (page[0]?.total ?? countRows(snapshot, to, compiled, counting));
  const best = !sorted || request.trackScores ? page[0]?.best : undefined;
  const sourceOf = db.query<{ source: string }, [bigint]>(`select source from sources_${index.number} where seq = ?`);
  const hits = page.map((row): Reply => {
    const source =
      request.source === false && request.highlight === undefined ? "{}" : (sourceOf.get(row.seq)?.source ?? "{}");
    const document = request.highlight === undefined ? {} : parseJson(source);
    return {
      _index: index.name,
      _id: row.id,
      _version: request.version ? row.version : undefined,
      ...(request.seqNo ? { _seq_no: row.seq, _primary_term: 1 } : {}),
      _score: scored ? showFloat(row.score) : null,
      _source: showSource(source, request.source),
      highlight:
        request.highlight && isObject(document)
          ? highlight(request.highlight, index.mapping, to.wanted, document)
          : undefined,
      sort: shown.length > 0 ? shown.map((key, i) => key.show(row.keys[i] ?? null)) : undefined,
    };
  });
  return {
    pit_id: pitId,
    took: Math.round(performance.now() - started),
    timed_out: false,
    _shards: { total: 1, successful: 1, skipped: 0, failed: 0 },
    hits: {
      total: total === undefined ? undefined : showTotal(total, request.countUpTo),
      max_score: best === undefined ? null : showFloat(best),
      hits,
    },
  };
}

/** POST /{index}/_count */
export function count(snapshot: Snapshot, body: JsonObject): Reply {
  const { query, ...rest } = body;
  const [other] = Object.keys(rest);
  if (other !== undefined) throw parsingException(`request does not support [${other}]`);
  const to = startCompilation(snapshot);
  const compiled = compile(to, query ?? { match_all: {} }, 1, false);
  const total = countRows(snapshot, to, compiled, to.parameters);
  return { count: total, _shards: { total: 1, successful: 1, skipped: 0, failed: 0 } };
}

interface Row {
  readonly seq: bigint;
  readonly id: string;
  readonly version: bigint;
  readonly score: number;
  readonly keys: readonly (Value | null)[];
  /** Of the whole result; undefined where neither was asked for. */
  readonly total: number | undefined;
  readonly best: number | undefined;
}

function rowsOf(
  snapshot: Snapshot,
  to: Compilation,
  compiled: Compiled,
  request: SearchRequest,
  keys: readonly SortKey[],
): Row[] {
  const { db, index } = snapshot;
  const order = keys.length > 0 ? [...keys, byWriting] : [byScore, byWriting];
  const columns = order
    .map((key, i) => `${key.name === "_score" ? compiled.score : key.expression} as k${i}`)
    .join(", ");
  const beyond = request.searchAfter === undefined ? "1" : after(to, keys, request.searchAfter, index);
  const limits = `limit ${bind(to, request.size)} offset ${bind(to, request.from)}`;
  // All hits are gathered once and used for page, total and best score. Who wants the page alone, as one who reads an
  // index through in the order of writing, has it from the table's own order, without the rest being looked at.
  const whole = request.countUpTo >= 0 || keys.length === 0 || request.trackScores;
  const totals = whole
    ? "(select count(*) from hits) as total, (select max(score) from hits) as best"
    : "null as total, null as best";
  const hits = `hits as ${whole ? "materialized " : ""}(
    select d.seq as seq, ${compiled.score} as score, ${columns} ${fromRows(snapshot, to, compiled)})`;
  const sql = `with ${[...to.tables, hits].join(", ")}
    select h.*, d.id, d.version, ${totals}
      from (select * from hits where ${beyond} order by ${orderBy(order)} ${limits}) h
      join docs_${index.number} d on d.seq = h.seq
     order by ${orderBy(order)}`;
  return db
    .query<Record<string, Value | null>, SQLQueryBindings[]>(sql)
    .all(...used(sql, to.parameters))
    .map((row) => ({
      seq: BigInt(row["seq"] ?? 0),
      id: String(row["id"]),
      version: BigInt(row["version"] ?? 0),
      score: Number(row["score"]),
      keys: keys.map((_, i) => row[`k${i}`] ?? null),
      total: row["total"] === null ? undefined : Number(row["total"]),
      best: row["best"] === null ? undefined : Number(row["best"]),
    }));
}

function countRows(
  snapshot: Snapshot,
  to: Compilation,
  compiled: Compiled,
  parameters: readonly SQLQueryBindings[],
): number {
  const sql = `${withTables(to)} select count(*) as total ${fromRows(snapshot, to, compiled)}`;
  return Number(
    snapshot.db.query<{ total: bigint }, SQLQueryBindings[]>(sql).get(...used(sql, parameters))?.total ?? 0,
  );
}

/** The parameters that the statement names: SQLite refuses more than it has places for. */
function used(sql: string, parameters: readonly SQLQueryBindings[]): SQLQueryBindings[] {
  let most = 0;
  for (const [, number] of sql.matchAll(/\?(\d+)/g)) most = Math.max(most, Number(number));
  return parameters.slice(0, most);
}

function withTables(to: Compilation): string {
  return to.tables.length === 0 ? "" : `with ${to.tables.join(", ")}`;
}

function fromRows({ index }: Snapshot, to: Compilation, compiled: Compiled): string {
  const joins = [...to.joined].map((table) => `left join ${table} on ${table}.doc = d.seq`);
  return `from docs_${index.number} d ${joins.join(" ")} where ${compiled.match}`;
}

function showTotal(total: number, upTo: number): Reply {
  return total > upTo ? { value: upTo, relation: "gte" } : { value: total, relation: "eq" };
}

function checkWindow({ index }: Snapshot, reach: number): void {
  const most = Number(index.settings.get("index.max_result_window") ?? 10_000);
  if (reach <= most) return;
  throw shardFailure(index, 400, {
    type: "illegal_argument_exception",
    reason: `Result window is too large, from + size must be less than or equal to: [${most}] but was [${reach}]. See the scroll api for a more efficient way to request large data sets. This limit can be set by changing the [index.max_result_window] index level setting.`,
  });
}

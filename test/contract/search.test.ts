import { beforeAll, describe, expect, test } from "bun:test";
import { createWordloomIndex, openTargets } from "./targets.ts";

const documents = {
  "block:1": {
    entity_type: "block",
    library_id: "en",
    title: "Ownership and borrowing",
    text: "The ownership of a value moves. <b>Ownership</b> rules are simple & strict.",
    snippet: "hidden",
    rank_score: 1.5,
    event_version: 11,
    updated_at: "2024-01-02T03:04:05.678Z",
  },
  "block:2": {
    entity_type: "block",
    library_id: "zh",
    title: "所有权 与 借用",
    text: "所有权是 Rust 最独特的功能，所有权让 Rust 无需垃圾回收。",
    rank_score: 2.25,
    event_version: 2,
    updated_at: 1704164645678,
  },
  "block:3": {
    entity_type: "block",
    library_id: ["en", "extra"],
    title: "References",
    text: "borrowing borrowing borrowing ownership",
    rank_score: 0.1,
    event_version: [3, 30],
    updated_at: "2024-01-02",
  },
  "tag:4": { entity_type: "tag", title: "nothing here" },
} as const;

interface Hit {
  _id: string;
  _score: number | null;
  highlight?: Record<string, string[]>;
  sort?: unknown[];
}

describe.each(await openTargets())("search on %s", (_name, target) => {
  const { send, bulk } = target;
  let alias = "";
  let index = "";
  const search = async (body: object) => (await send("POST", `/${alias}/_search`, body)).json;
  const find = async (query: object, more: object = {}) => (await search({ query, _source: false, ...more })).hits;
  const ids = async (query: object) => (await find(query)).hits.map(({ _id }: Hit) => _id).sort();
  const refusal = async (body: object | string) => {
    const { status, json } = await send("POST", `/${alias}/_search`, body);
    return { status, ...json.error };
  };

  beforeAll(async () => {
    ({ alias, index } = await createWordloomIndex(target));
    const lines = Object.entries(documents).flatMap(([_id, document]) => [
      { index: { _id, version: 7, version_type: "external" } },
      document,
    ]);
    const written = await bulk(`/${alias}/_bulk?refresh=true`, ...lines);
    if (written.json.errors !== false) throw new Error(written.text);
  });

  test("without a body all documents are found, in the order of writing", async () => {
    const reply = await send("GET", `/${alias}/_search`);
    expect(reply.json).toMatchObject({
      timed_out: false,
      _shards: { total: 1, successful: 1, skipped: 0, failed: 0 },
      hits: { total: { value: 4, relation: "eq" }, max_score: 1 },
    });
    expect(reply.json.hits.hits[0]).toEqual({
      _index: index,
      _id: "block:1",
      _score: 1,
      _source: documents["block:1"],
    });
    expect(reply.json.hits.hits.map(({ _id }: Hit) => _id)).toEqual(Object.keys(documents));
  });

  test("Wordloom's own search: the best field counts, filters do not score, hits carry version and highlights", async () => {
    const { hits } = await search({
      query: {
        bool: {
          must: {
            multi_match: {
              query: "ownership borrowing",
              type: "best_fields",
              operator: "or",
              fields: ["title^3", "text"],
            },
          },
          filter: [{ terms: { entity_type: ["block"] } }, { term: { library_id: "en" } }],
        },
      },
      highlight: { encoder: "html", fields: { title: { number_of_fragments: 0 }, text: {} } },
      version: true,
      from: 0,
      size: 10,
      _source: ["title"],
    });
    expect(hits.total).toEqual({ value: 2, relation: "eq" });
    expect(hits.max_score).toBeCloseTo(7.567829, 4);
    expect(hits.hits[0]).toMatchObject({
      _id: "block:1",
      _version: 7,
      _source: { title: "Ownership and borrowing" },
      highlight: {
        title: ["<em>Ownership</em> and <em>borrowing</em>"],
        text: [
          "The <em>ownership</em> of a value moves. &lt;b&gt;<em>Ownership</em>&lt;&#x2F;b&gt; rules are simple &amp; strict.",
        ],
      },
    });
    expect(hits.hits[1]["_id"]).toBe("block:3");
    expect(hits.hits[1]["_score"]).toBeCloseTo(2.4016228, 4);
  });

  test("operator and wants all words in one field", async () => {
    const both = { query: "ownership borrowing", operator: "and" };
    expect(await ids({ multi_match: { ...both, fields: ["title", "text"] } })).toEqual(["block:1", "block:3"]);
    expect(await ids({ match: { title: both } })).toEqual(["block:1"]);
    expect(await ids({ match: { text: { query: "ownership borrowing" } } })).toEqual(["block:1", "block:3"]);
  });

  test("a field is highlighted for the clause that found it there", async () => {
    const { hits } = await search({
      query: { multi_match: { query: "ownership borrowing", operator: "and", fields: ["title", "text"] } },
      highlight: { fields: { title: {}, text: {} } },
    });
    const found = hits.hits.find(({ _id }: Hit) => _id === "block:1");
    expect(Object.keys(found.highlight)).toEqual(["title"]);
  });

  test("scores are Lucene's BM25, to five digits", async () => {
    const scores = async (query: object) =>
      Object.fromEntries((await find(query)).hits.map(({ _id, _score }: Hit) => [_id, Number(_score?.toPrecision(5))]));
    expect(await scores({ match: { text: "ownership borrowing" } })).toEqual({ "block:3": 2.4016, "block:1": 0.67059 });
    expect(
      await scores({ multi_match: { query: "ownership borrowing", fields: ["title^3", "text"], tie_breaker: 0.3 } }),
    ).toEqual({
      "block:1": 7.769,
      "block:3": 2.4016,
    });
    expect(await scores({ term: { library_id: "en" } })).toEqual({ "block:1": 0.52355, "block:3": 0.52355 });
    expect(await scores({ term: { library_id: { value: "en", boost: 2 } } })).toEqual({
      "block:1": 1.0471,
      "block:3": 1.0471,
    });
    expect(await scores({ terms: { library_id: ["en"], boost: 3 } })).toEqual({ "block:1": 3, "block:3": 3 });
    expect(await scores({ range: { event_version: { gte: 3 } } })).toEqual({ "block:1": 1, "block:3": 1 });
    expect(await scores({ bool: { filter: { term: { library_id: "en" } } } })).toEqual({ "block:1": 0, "block:3": 0 });
    expect(
      await scores({ bool: { should: [{ match: { text: "ownership" } }, { term: { library_id: "zh" } }] } }),
    ).toEqual({
      "block:2": expect.any(Number),
      "block:1": 0.67059,
      "block:3": 0.62728,
    });
  });

  test("Chinese is found by any two characters that stand together", async () => {
    for (const query of ["所有", "有权", "所有权", "垃圾回收"]) {
      expect(await ids({ match: { text: { query, operator: "and" } } })).toEqual(["block:2"]);
    }
    expect(await ids({ match: { text: { query: "权所", operator: "and" } } })).toEqual([]);
  });

  test("stop words and empty text find nothing", async () => {
    expect(await ids({ match: { text: "the" } })).toEqual([]);
    expect(await ids({ match: { text: "" } })).toEqual([]);
  });

  test.each([
    [{ term: { library_id: "en" } }, ["block:1", "block:3"]],
    [{ term: { library_id: "EN" } }, []],
    [{ term: { library_id: "extra" } }, ["block:3"]],
    [{ term: { title: "ownership" } }, ["block:1"]],
    [{ term: { event_version: 30 } }, ["block:3"]],
    [{ term: { event_version: "11" } }, ["block:1"]],
    [{ term: { rank_score: 0.1 } }, ["block:3"]],
    [{ term: { unknown: "x" } }, []],
    [{ match: { unknown: "x" } }, []],
    [{ match: { event_version: "2" } }, ["block:2"]],
    [{ terms: { entity_type: ["tag", "book"] } }, ["tag:4"]],
    [{ terms: { entity_type: [] } }, []],
    [{ ids: { values: ["block:1", "nobody"] } }, ["block:1"]],
    [{ exists: { field: "library_id" } }, ["block:1", "block:2", "block:3"]],
    [{ exists: { field: "text" } }, ["block:1", "block:2", "block:3"]],
    [{ exists: { field: "snippet" } }, []],
    [{ range: { event_version: { gt: 2, lte: 11 } } }, ["block:1", "block:3"]],
    [{ range: { library_id: { gte: "f" } } }, ["block:2"]],
    [{ range: { rank_score: { lt: 1.5 } } }, ["block:3"]],
    [{ range: { updated_at: { gte: "2024-01-02", lt: "2024-01-03" } } }, ["block:1", "block:2", "block:3"]],
    [{ range: { updated_at: { gt: "2024-01-02" } } }, []],
    [{ range: { updated_at: { lte: "2024-01-02" } } }, ["block:1", "block:2", "block:3"]],
    [{ range: { updated_at: { gte: 1704164645678 } } }, ["block:1", "block:2"]],
    [{ match_all: {} }, ["block:1", "block:2", "block:3", "tag:4"]],
    [{ match_none: {} }, []],
    [{ bool: {} }, ["block:1", "block:2", "block:3", "tag:4"]],
    [{ bool: { must_not: { term: { entity_type: "block" } } } }, ["tag:4"]],
    [
      { bool: { filter: { term: { entity_type: "block" } }, should: { term: { library_id: "zh" } } } },
      ["block:1", "block:2", "block:3"],
    ],
    [
      {
        bool: {
          should: [{ match: { text: "ownership" } }, { term: { library_id: "extra" } }],
          minimum_should_match: 2,
        },
      },
      ["block:3"],
    ],
    [{ bool: { must: { match: { text: "ownership" } }, must_not: [{ ids: { values: ["block:3"] } }] } }, ["block:1"]],
    [{ match: { text: { query: "ownership borrowing value", minimum_should_match: 2 } } }, ["block:1", "block:3"]],
  ] as const)("the query %j finds %j", async (query, expected) => {
    expect(await ids(query)).toEqual([...expected]);
  });

  test.each([
    [{ query: { nonsense: {} } }, "parsing_exception", "unknown query [nonsense]"],
    [{ query: {} }, "illegal_argument_exception", /^query malformed, empty clause found/],
    [{ query: { bool: { nonsense: [] } } }, "x_content_parse_exception", /\[bool\] unknown field \[nonsense\]$/],
    [
      { query: { match: { text: { query: "x", nonsense: 1 } } } },
      "parsing_exception",
      "[match] query does not support [nonsense]",
    ],
    [
      { query: { match: { text: "a", title: "b" } } },
      "parsing_exception",
      "[match] query doesn't support multiple fields, found [text] and [title]",
    ],
    [
      { query: { multi_match: { query: "x", fields: ["text"], nonsense: 1 } } },
      "parsing_exception",
      "[multi_match] query does not support [nonsense]",
    ],
    [
      { query: { multi_match: { query: "x", fields: ["text"], type: "zz" } } },
      "parse_exception",
      "failed to parse [multi_match] query type [zz]. unknown type.",
    ],
    [
      { query: { range: { event_version: { gte: 1, nonsense: 2 } } } },
      "parsing_exception",
      "[range] query does not support [nonsense]",
    ],
    [{ nonsense: 1 }, "parsing_exception", "Unknown key for a VALUE_NUMBER in [nonsense]."],
    [
      { highlight: { nonsense: 1, fields: {} } },
      "x_content_parse_exception",
      /\[highlight\] unknown field \[nonsense\]$/,
    ],
    [{ from: -1 }, "illegal_argument_exception", "[from] parameter cannot be negative but was [-1]"],
    [{ size: -2 }, "illegal_argument_exception", "[size] parameter cannot be negative, found [-2]"],
    [
      { sort: ["event_version"], search_after: [1], from: 1 },
      "action_request_validation_exception",
      "Validation Failed: 1: [from] parameter must be set to 0 when [search_after] is used;",
    ],
  ] as const)("the search %j is refused", async (body, type, reason) => {
    const refused = await refusal(body);
    expect([refused.status, refused.type]).toEqual([400, type]);
    if (typeof reason === "string") expect(refused.reason).toBe(reason);
    else expect(refused.reason).toMatch(reason);
  });

  test("broken JSON is refused", async () => {
    expect(await refusal("{broken")).toMatchObject({ status: 400, type: "x_content_parse_exception" });
  });

  test.each([
    [
      { query: { term: { event_version: "abc" } } },
      "query_shard_exception",
      'failed to create query: For input string: "abc"',
    ],
    [
      { query: { match: { snippet: "x" } } },
      "query_shard_exception",
      "failed to create query: Cannot search on field [snippet] since it is not indexed.",
    ],
    [{ sort: ["unknown"] }, "query_shard_exception", "No mapping found for [unknown] in order to sort on"],
    [{ sort: ["title"] }, "illegal_argument_exception", /^Fielddata is disabled on \[title\]/],
    [
      { sort: ["event_version"], search_after: [1, 2] },
      "illegal_argument_exception",
      "search_after has 2 value(s) but sort has 1.",
    ],
    [
      { from: 9_999, size: 2 },
      "illegal_argument_exception",
      /^Result window is too large, from \+ size must be less than or equal to: \[10000\] but was \[10001\]/,
    ],
    [
      { query: { range: { updated_at: { gte: "garbage" } } } },
      "parse_exception",
      /^failed to parse date field \[garbage\]/,
    ],
  ] as const)("the search %j fails on the shard", async (body, type, reason) => {
    const failed = await refusal(body);
    expect([failed.status, failed.type, failed.reason]).toEqual([
      400,
      "search_phase_execution_exception",
      "all shards failed",
    ]);
    const cause = failed.failed_shards[0].reason;
    expect([cause.type, failed.root_cause[0].type]).toEqual([type, type]);
    if (typeof reason === "string") expect(cause.reason).toBe(reason);
    else expect(cause.reason).toMatch(reason);
  });

  test("pages follow each other, the total stays", async () => {
    const page = async (from: number) => {
      const hits = await find({ match_all: {} }, { from, size: 3 });
      return [hits.total.value, hits.hits.map(({ _id }: Hit) => _id)];
    };
    expect(await page(0)).toEqual([4, ["block:1", "block:2", "block:3"]]);
    expect(await page(3)).toEqual([4, ["tag:4"]]);
    expect(await page(6)).toEqual([4, []]);
  });

  test("the total is exact, capped or left out as asked", async () => {
    expect((await search({ size: 0, track_total_hits: true })).hits.total).toEqual({ value: 4, relation: "eq" });
    expect((await search({ size: 0, track_total_hits: 2 })).hits.total).toEqual({ value: 2, relation: "gte" });
    expect((await search({ size: 0, track_total_hits: false })).hits.total).toBeUndefined();
    expect((await search({ size: 0 })).hits.max_score).toBeNull();
  });

  test("documents are sorted by fields, the missing last or first", async () => {
    const sorted = async (...sort: (object | string)[]) => (await search({ sort, _source: false })).hits;
    const byDate = await sorted("updated_at", { event_version: "desc" });
    expect(byDate.max_score).toBeNull();
    expect(byDate.hits.map(({ _id, _score, sort }: Hit) => [_id, _score, sort?.[0]])).toEqual([
      ["block:3", null, 1704153600000],
      ["block:1", null, 1704164645678],
      ["block:2", null, 1704164645678],
      ["tag:4", null, 2 ** 63],
    ]);
    const byScore = await sorted({ rank_score: "desc" });
    expect(byScore.hits.map(({ sort }: Hit) => sort?.[0])).toEqual([2.25, 1.5, 0.1, "-Infinity"]);
    const byLibrary = await sorted({ library_id: { order: "asc", missing: "_first" } }, "_doc");
    expect(byLibrary.hits.map(({ sort }: Hit) => sort?.[0])).toEqual([null, "en", "en", "zh"]);
    const byVersion = await sorted({ event_version: { order: "desc" } });
    expect(byVersion.hits.map(({ sort }: Hit) => sort?.[0])).toEqual([30, 11, 2, -(2 ** 63)]);
  });

  test("search_after goes on where the page before ended", async () => {
    const sort = [{ library_id: "desc" }, { event_version: "asc" }];
    const seen: string[] = [];
    let after: unknown[] | undefined;
    for (let page = 0; page < 6; page++) {
      const { hits } = await search({
        sort,
        size: 1,
        _source: false,
        ...(after === undefined ? {} : { search_after: after }),
      });
      expect(hits.total.value).toBe(4);
      const [hit] = hits.hits;
      if (hit === undefined) break;
      seen.push(hit["_id"]);
      after = hit.sort;
    }
    expect(seen).toEqual(["block:2", "block:3", "block:1", "tag:4"]);
  });

  test("score and field sort together", async () => {
    const hits = await find({ match: { text: "ownership" } }, { sort: ["_score", { event_version: "desc" }] });
    expect(hits.hits.map(({ _id }: Hit) => _id)).toEqual(["block:1", "block:3"]);
    expect(hits.hits[0].sort[0]).toBeCloseTo(0.670591, 5);
    expect(hits.max_score).toBeNull();
    const byScore = await find({ match: { text: "ownership" } }, { sort: ["_score"] });
    expect(byScore.max_score).toBeCloseTo(0.670591, 5);
    expect(byScore.hits[0].sort).toBeUndefined();
  });

  test("highlights take the tags, sizes and encoder that are asked for", async () => {
    const highlights = async (query: string, highlight: object) =>
      (await search({ query: { match: { text: query } }, highlight })).hits.hits[0].highlight;
    expect(await highlights("所有权", { fields: { text: { pre_tags: ["["], post_tags: ["]"] } } })).toEqual({
      text: ["[所有权]是 Rust 最独特的功能，[所有权]让 Rust 无需垃圾回收。"],
    });
    expect(await highlights("value", { fields: { text: { fragment_size: 20, number_of_fragments: 1 } } })).toEqual({
      text: ["The ownership of a <em>value</em>"],
    });
    expect(await highlights("simple", { encoder: "default", fields: { text: { number_of_fragments: 0 } } })).toEqual({
      text: ["The ownership of a value moves. <b>Ownership</b> rules are <em>simple</em> & strict."],
    });
    expect(await highlights("simple", { fields: { title: { no_match_size: 5 } } })).toEqual({ title: ["Ownership"] });
    expect(await highlights("simple", { fields: { title: {} } })).toBeUndefined();
  });

  test("what is excluded is not highlighted", async () => {
    const { hits } = await search({
      query: { bool: { must: { match: { text: "borrowing" } }, must_not: { match: { title: "nothing" } } } },
      highlight: { fields: { title: {}, text: {} } },
    });
    expect(hits.hits[0].highlight).toEqual({
      text: ["<em>borrowing</em> <em>borrowing</em> <em>borrowing</em> ownership"],
    });
  });

  test("count takes a query and nothing else", async () => {
    expect((await send("POST", `/${alias}/_count`)).json).toEqual({
      count: 4,
      _shards: { total: 1, successful: 1, skipped: 0, failed: 0 },
    });
    expect((await send("POST", `/${alias}/_count`, { query: { term: { entity_type: "tag" } } })).json.count).toBe(1);
    const refused = await send("POST", `/${alias}/_count`, { size: 1 });
    expect([refused.status, refused.json.error.reason]).toEqual([400, "request does not support [size]"]);
  });

  test("a later write replaces what could be found before", async () => {
    const own = await createWordloomIndex(target);
    const find = async (word: string) =>
      (await send("POST", `/${own.alias}/_count`, { query: { match: { title: word } } })).json.count;
    await bulk(`/${own.alias}/_bulk?refresh=true`, { index: { _id: "a" } }, { title: "before" });
    expect([await find("before"), await find("after")]).toEqual([1, 0]);
    await bulk(`/${own.alias}/_bulk?refresh=true`, { index: { _id: "a" } }, { title: "after" });
    expect([await find("before"), await find("after")]).toEqual([0, 1]);
    await bulk(`/${own.alias}/_bulk?refresh=true`, { delete: { _id: "a" } });
    expect([await find("before"), await find("after")]).toEqual([0, 0]);
  });

  test("a refresh answers with its shards", async () => {
    expect((await send("POST", `/${alias}/_refresh`)).json).toEqual({
      _shards: { total: 1, successful: 1, failed: 0 },
    });
  });

  test("a point in time keeps what was there when it was opened, page by page", async () => {
    const own = await createWordloomIndex(target);
    const write = (...ids: string[]) =>
      bulk(
        `/${own.alias}/_bulk?refresh=true`,
        ...ids.flatMap((_id) => [{ index: { _id } }, { entity_id: _id, title: "old" }]),
      );
    await write("a", "b", "c");
    const { id } = (await send("POST", `/${own.alias}/_pit?keep_alive=1m`)).json;
    await write("b", "d");
    await bulk(`/${own.alias}/_bulk?refresh=true`, { delete: { _id: "c" } });
    const seen: string[] = [];
    let after: unknown[] | undefined;
    for (;;) {
      const reply = await send("POST", "/_search", {
        size: 2,
        query: { match: { title: "old" } },
        pit: { id, keep_alive: "1m" },
        sort: ["_shard_doc"],
        ...(after === undefined ? {} : { search_after: after }),
      });
      expect(reply.json.pit_id).toBeString();
      const last = reply.json.hits.hits.at(-1);
      if (last === undefined) break;
      seen.push(...reply.json.hits.hits.map(({ _id }: Hit) => _id));
      after = last.sort;
    }
    expect(seen).toEqual(["a", "b", "c"]);
    const tieBroken = await send("POST", "/_search", { size: 1, pit: { id }, sort: [{ entity_id: "desc" }] });
    expect(tieBroken.json.hits.hits[0].sort).toEqual(["c", expect.any(Number)]);
    expect((await send("DELETE", "/_pit", { id })).json).toEqual({ succeeded: true, num_freed: 1 });
    expect((await send("DELETE", "/_pit", { id })).status).toBe(404);
    const gone = await send("POST", "/_search", { pit: { id } });
    expect([gone.status, gone.json.error.failed_shards[0].reason.type]).toEqual([
      404,
      "search_context_missing_exception",
    ]);
  });

  test("a point in time needs a keep_alive, and no index beside it", async () => {
    const nameless = await send("POST", `/${alias}/_pit`);
    expect([nameless.status, nameless.json.error.reason]).toEqual([
      400,
      "Validation Failed: 1: [keep_alive] is not specified;",
    ]);
    const { id } = (await send("POST", `/${alias}/_pit?keep_alive=1m`)).json;
    const both = await send("POST", `/${alias}/_search`, { pit: { id } });
    expect([both.status, both.json.error.type]).toEqual([400, "action_request_validation_exception"]);
    expect((await send("POST", "/_search", { pit: { id: "nonsense" } })).status).toBe(400);
    await send("DELETE", "/_pit", { id });
  });
});

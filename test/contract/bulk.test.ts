import { beforeAll, describe, expect, test } from "bun:test";
import { createWordloomIndex, openTargets } from "./targets.ts";

describe.each(await openTargets())("bulk on %s", (_name, target) => {
  const { bulk, send } = target;
  const external = (_index: string, _id: string, version: number) => ({
    _index,
    _id,
    version,
    version_type: "external",
    require_alias: true,
  });

  let shared = "";
  beforeAll(async () => {
    shared = (await createWordloomIndex(target)).alias;
  });

  test("a first write is created, a later one updated, in the order of the lines", async () => {
    const { alias, index } = await createWordloomIndex(target);
    const reply = await bulk(
      "/_bulk?refresh=true",
      { index: external(alias, "tag:1", 5) },
      { title: "one" },
      { index: external(alias, "tag:1", 8) },
      { title: "two" },
    );
    expect(reply.status).toBe(200);
    expect(reply.json.errors).toBe(false);
    expect(reply.json.took).toBeNumber();
    expect(reply.json.items[0].index).toEqual({
      _index: index,
      _id: "tag:1",
      _version: 5,
      result: "created",
      forced_refresh: true,
      _shards: { total: 1, successful: 1, failed: 0 },
      _seq_no: 0,
      _primary_term: 1,
      status: 201,
    });
    expect(reply.json.items[1].index).toMatchObject({ _version: 8, result: "updated", status: 200, _seq_no: 1 });
    expect((await send("GET", `/${alias}/_doc/tag:1`)).json["_source"]).toEqual({ title: "two" });
  });

  test("an equal or older external version is a conflict that names the stored version", async () => {
    const { alias, index } = await createWordloomIndex(target);
    const reply = await bulk(
      "/_bulk",
      { index: external(alias, "a", 7) },
      { title: "seven" },
      { index: external(alias, "a", 7) },
      { title: "again" },
      { index: external(alias, "a", 6) },
      { title: "late" },
    );
    expect(reply.json.errors).toBe(true);
    const { uuid } = (await send("GET", `/${index}/_settings`)).json[index].settings.index;
    expect(reply.json.items[2].index).toEqual({
      _index: index,
      _id: "a",
      status: 409,
      error: {
        type: "version_conflict_engine_exception",
        reason: "[a]: version conflict, current version [7] is higher or equal to the one provided [6]",
        index_uuid: uuid,
        shard: "0",
        index,
      },
    });
    expect(reply.json.items[1].index.error.reason).toEndWith(
      "current version [7] is higher or equal to the one provided [7]",
    );
    expect((await send("GET", `/${alias}/_doc/a`)).json["_source"]).toEqual({ title: "seven" });
  });

  test("versions are whole 64-bit numbers, digit by digit", async () => {
    const { alias } = await createWordloomIndex(target);
    const line = (version: string) =>
      `{"index":{"_index":"${alias}","_id":"a","version":${version},"version_type":"external"}}`;
    const first = await bulk("/_bulk", line("9007199254740992"), { title: "a" });
    expect(first.text).toContain('"_version":9007199254740992,');
    const next = await bulk("/_bulk", line("9007199254740993"), '{"event_version":9007199254740993}');
    expect(next.text).toContain('"_version":9007199254740993,"result":"updated"');
    const equal = await bulk("/_bulk", line("9007199254740993"), { title: "b" });
    expect(equal.text).toContain(
      "current version [9007199254740993] is higher or equal to the one provided [9007199254740993]",
    );
    const most = await bulk("/_bulk", line("9223372036854775807"), { title: "c" });
    expect(most.text).toContain('"_version":9223372036854775807');
    const beyond = await bulk("/_bulk", line("9223372036854775808"), { title: "d" });
    expect(beyond.status).toBe(400);
  });

  test("a delete removes the document and remembers its version", async () => {
    const { alias } = await createWordloomIndex(target);
    const reply = await bulk(
      "/_bulk?refresh=true",
      { index: external(alias, "a", 3) },
      { title: "three" },
      { delete: external(alias, "a", 4) },
      { index: external(alias, "a", 3) },
      { title: "late" },
      { index: external(alias, "a", 5) },
      { title: "again" },
    );
    expect(reply.json.items[1].delete).toMatchObject({ _version: 4, result: "deleted", status: 200 });
    expect(reply.json.items[2].index.error.reason).toBe(
      "[a]: version conflict, current version [4] is higher or equal to the one provided [3]",
    );
    expect(reply.json.items[3].index).toMatchObject({ _version: 5, result: "created", status: 201 });
  });

  test("a delete of what is not there is 404 not_found with its version, and is remembered", async () => {
    const { alias } = await createWordloomIndex(target);
    const reply = await bulk(
      "/_bulk",
      { delete: external(alias, "a", 7) },
      { index: external(alias, "a", 6) },
      { title: "late" },
      { delete: external(alias, "a", 7) },
      { delete: external(alias, "a", 8) },
    );
    const [first, late, same, newer] = reply.json.items;
    expect(first.delete).toMatchObject({ _id: "a", _version: 7, result: "not_found", status: 404 });
    expect(first.delete.error).toBeUndefined();
    expect(late.index).toMatchObject({ status: 409, error: { type: "version_conflict_engine_exception" } });
    expect(same.delete).toMatchObject({ status: 409, error: { type: "version_conflict_engine_exception" } });
    expect(newer.delete).toMatchObject({ _version: 8, result: "not_found", status: 404 });
    expect((await send("GET", `/${alias}/_doc/a`)).status).toBe(404);
  });

  test("without versions the engine counts them, deletions included", async () => {
    const { alias } = await createWordloomIndex(target);
    const reply = await bulk(
      `/${alias}/_bulk`,
      { index: { _id: "b" } },
      { title: "1" },
      { create: { _id: "b" } },
      { title: "2" },
      { delete: { _id: "b" } },
      { delete: { _id: "b" } },
      { create: { _id: "b" } },
      { title: "3" },
      { delete: { _id: "never" } },
    );
    const [index, create, deleted, again, created, never] = reply.json.items;
    expect(index.index).toMatchObject({ _version: 1, status: 201 });
    expect(create.create).toMatchObject({
      status: 409,
      error: { reason: "[b]: version conflict, document already exists (current version [1])" },
    });
    expect(deleted.delete).toMatchObject({ _version: 2, result: "deleted" });
    expect(again.delete).toMatchObject({ _version: 3, result: "not_found", status: 404 });
    expect(created.create).toMatchObject({ _version: 4, result: "created", status: 201 });
    expect(never.delete).toMatchObject({ _version: 1, result: "not_found", status: 404 });
  });

  test("an index without an id gets one; an empty id is refused", async () => {
    const { alias } = await createWordloomIndex(target);
    const reply = await bulk(`/${alias}/_bulk`, { index: {} }, { title: "a" }, { index: { _id: "" } }, { title: "b" });
    expect(reply.json.items[0].index["_id"]).toMatch(/^[A-Za-z0-9_-]{20}$/);
    expect(reply.json.items[1].index).toMatchObject({
      status: 400,
      error: { type: "illegal_argument_exception", reason: "if _id is specified it must not be empty" },
    });
  });

  test("with require_alias nothing is written to an index by its own name, and none is made", async () => {
    const { alias, index } = await createWordloomIndex(target);
    const missing = target.newName();
    const reply = await bulk(
      "/_bulk",
      { index: external(missing, "a", 1) },
      { title: "a" },
      { index: external(index, "a", 1) },
      { title: "a" },
      { delete: external(missing, "a", 1) },
      { index: external(alias, "a", 1) },
      { title: "a" },
    );
    const [unknown, direct, deleted, right] = reply.json.items;
    const reason = (name: string) =>
      `no such index [${name}] and [require_alias] request flag is [true] and [${name}] is not an alias`;
    expect(unknown.index).toMatchObject({
      status: 404,
      error: { type: "index_not_found_exception", reason: reason(missing) },
    });
    expect(direct.index).toMatchObject({
      status: 404,
      error: { type: "index_not_found_exception", reason: reason(index) },
    });
    expect(deleted.delete).toMatchObject({ status: 404, error: { type: "index_not_found_exception" } });
    expect(right.index.status).toBe(201);
    expect((await send("HEAD", `/${missing}`)).status).toBe(404);
    const flag = await bulk("/_bulk?require_alias=true", { index: { _index: index, _id: "b" } }, { title: "b" });
    expect(flag.json.items[0].index.status).toBe(404);
  });

  test.each([
    [{ event_version: "abc" }, "long", "For input string"],
    [{ event_version: true }, "long", undefined],
    [{ title: { a: 1 } }, "text", undefined],
    [{ entity_id: { a: 1 } }, "keyword", undefined],
    [{ updated_at: "yesterday" }, "date", "failed to parse date field [yesterday]"],
    [{ updated_at: "2024-02-30" }, "date", undefined],
    [{ updated_at: "" }, "date", "cannot parse empty datetime"],
    [{ rank_score: "1e400" }, "float", "[float] supports only finite values"],
    [{ rank_score: "many" }, "float", undefined],
  ] as const)("the document %j does not fit its %s field", async (document, type, cause) => {
    const [name] = Object.keys(document);
    const reply = await bulk(
      `/${shared}/_bulk`,
      { index: { _id: "x" } },
      document,
      { index: { _id: "y" } },
      { title: "fine" },
    );
    const { status, error } = reply.json.items[0].index;
    expect([status, error.type]).toEqual([400, "document_parsing_exception"]);
    expect(error.reason).toContain(`failed to parse field [${name}] of type [${type}] in document with id 'x'.`);
    expect(error.caused_by.type).toBeString();
    if (cause !== undefined) expect(error.caused_by.reason).toContain(cause);
    expect(reply.json.items[1].index.status).toBeLessThan(300);
  });

  test.each([
    ['{"title":', "document_parsing_exception"],
    ["[1]", "document_parsing_exception"],
    ['{"":"b"}', "document_parsing_exception"],
    ['{"_id":"b"}', "document_parsing_exception"],
    ['{"title":"a","title":"b"}', "document_parsing_exception"],
    ['{"nonsense":1}', "strict_dynamic_mapping_exception"],
    ['{"nobody.raw":"b"}', "strict_dynamic_mapping_exception"],
    ['{"title.raw":"b"}', "document_parsing_exception"],
    ['{"event_version":9223372036854775808}', "document_parsing_exception"],
  ] as const)("the source %s is a 400 of that item alone", async (source, type) => {
    const reply = await bulk(
      `/${shared}/_bulk`,
      { index: { _id: "x" } },
      source,
      { index: { _id: "y" } },
      { title: "fine" },
    );
    expect(reply.status).toBe(200);
    expect(reply.json.items[0].index).toMatchObject({ status: 400, error: { type } });
    expect(reply.json.items[1].index.status).toBeLessThan(300);
  });

  test("an unknown field under a strict mapping is named", async () => {
    const reply = await bulk(`/${shared}/_bulk`, { index: { _id: "x" } }, { nonsense: 1 });
    expect(reply.json.items[0].index.error.reason).toEndWith(
      "mapping set to strict, dynamic introduction of [nonsense] within [_doc] is not allowed",
    );
  });

  test("numbers and booleans in words fit, and so do arrays and null", async () => {
    const { alias } = await createWordloomIndex(target);
    const source =
      '{"event_version":"12","rank_score":"1.5","entity_type":12,"library_id":["a","b"],"book_id":null,"title":["a b","c"],"updated_at":1700000000000}';
    const reply = await bulk(`/${alias}/_bulk?refresh=true`, { index: { _id: "x" } }, source);
    expect(reply.json.errors).toBe(false);
    expect((await send("GET", `/${alias}/_source/x`)).text).toBe(source);
    for (const term of [{ event_version: 12 }, { rank_score: 1.5 }, { entity_type: "12" }, { library_id: "b" }]) {
      expect((await send("POST", `/${alias}/_count`, { query: { term } })).json.count).toBe(1);
    }
  });

  test.each([
    [
      "{}\n{}\n",
      "illegal_argument_exception",
      "Malformed action/metadata line [1], expected FIELD_NAME but found [END_OBJECT]",
    ],
    [
      "[]\n{}\n",
      "illegal_argument_exception",
      "Malformed action/metadata line [1], expected START_OBJECT but found [START_ARRAY]",
    ],
    [
      '{"zap":{}}\n{}\n',
      "illegal_argument_exception",
      "Malformed action/metadata line [1], expected field [create], [delete], [index] or [update] but found [zap]",
    ],
    [
      '{"index":"s"}\n{}\n',
      "illegal_argument_exception",
      "Malformed action/metadata line [1], expected START_OBJECT or END_OBJECT but found [VALUE_STRING]",
    ],
    [
      '{"index":{"_index":"x","nonsense":1}}\n{}\n',
      "illegal_argument_exception",
      "Action/metadata line [1] contains an unknown parameter [nonsense]",
    ],
    [
      '{"index":{"_index":"x","_id":"a"}}\n{}',
      "illegal_argument_exception",
      "The bulk request must be terminated by a newline [\\n]",
    ],
    ['{"index":{"_index":"x","version":"v"}}\n{}\n', "illegal_argument_exception", 'For input string: "v"'],
    ['{"index":{"_index":"x","version_type":"zz"}}\n{}\n', "illegal_argument_exception", "No version type match [zz]"],
    ['{"index":{"_id":"a"}}\n{}\n', "action_request_validation_exception", "Validation Failed: 1: index is missing;"],
    [
      '{"index":{"_index":"x","_id":"a","version":-1,"version_type":"external"}}\n{}\n',
      "action_request_validation_exception",
      "Validation Failed: 1: illegal version value [-1] for version type [EXTERNAL];",
    ],
    [
      '{"index":{"_index":"x","_id":"a","version_type":"external"}}\n{}\n',
      "action_request_validation_exception",
      "Validation Failed: 1: illegal version value [-3] for version type [EXTERNAL];",
    ],
    [
      '{"index":{"_index":"x","_id":"a","version":4}}\n{}\n',
      "action_request_validation_exception",
      "Validation Failed: 1: internal versioning can not be used for optimistic concurrency control. Please use `if_seq_no` and `if_primary_term` instead;",
    ],
    ["\n", "action_request_validation_exception", "Validation Failed: 1: no requests added;"],
    ["", "parse_exception", "request body is required"],
    ["garbage\n", "x_content_parse_exception", undefined],
  ] as const)("the body %j is refused as a whole", async (body, type, reason) => {
    const reply = await target.send("POST", "/_bulk", body);
    expect([reply.status, reply.json.error.type]).toEqual([400, type]);
    if (reason !== undefined) expect(reply.json.error.reason).toBe(reason);
  });

  test("an id of more than 512 bytes is refused as a whole", async () => {
    const reply = await bulk(`/${shared}/_bulk`, { index: { _id: "é".repeat(257) } }, { title: "a" });
    expect([reply.status, reply.json.error.type]).toEqual([400, "action_request_validation_exception"]);
    expect(reply.json.error.reason).toContain("is too long, must be no longer than 512 bytes but was: 514;");
  });

  test("a refresh that is none of true, false and wait_for is refused", async () => {
    const reply = await bulk(`/${shared}/_bulk?refresh=perhaps`, { index: { _id: "a" } }, { title: "a" });
    expect([reply.status, reply.json.error.reason]).toEqual([400, "Unknown value for refresh: [perhaps]."]);
  });

  test("what was written with refresh=true or wait_for can be found at once", async () => {
    const { alias } = await createWordloomIndex(target);
    for (const [i, refresh] of ["true", "wait_for"].entries()) {
      await bulk(`/${alias}/_bulk?refresh=${refresh}`, { index: { _id: `a${i}` } }, { title: "word" });
      expect((await send("POST", `/${alias}/_count`, { query: { match: { title: "word" } } })).json.count).toBe(i + 1);
    }
  });

  test("a body packed with gzip is read", async () => {
    const { alias } = await createWordloomIndex(target);
    const body = Bun.gzipSync(`{"index":{"_index":"${alias}","_id":"z"}}\n{"title":"packed"}\n`);
    const reply = await target.client.transport.request<{ errors: boolean }>(
      { method: "POST", path: "/_bulk", bulkBody: Buffer.from(body) as never },
      { headers: { "content-encoding": "gzip" } },
    );
    expect(reply.errors).toBe(false);
    expect((await send("GET", `/${alias}/_doc/z`)).json["_source"]).toEqual({ title: "packed" });
  });

  test("a body above 100 MB is a 413", async () => {
    const reply = await target.send("POST", "/_bulk", `${" ".repeat(100 * 1024 * 1024)}\n`);
    expect(reply.status).toBe(413);
  });
});

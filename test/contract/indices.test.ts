import { describe, expect, test } from "bun:test";
import { createWordloomIndex, openTargets, wordloomIndex } from "./targets.ts";

describe.each(await openTargets())("indices on %s", (_name, target) => {
  const { send, client } = target;

  test("the root says the product, a version and the tagline", async () => {
    const root = await send("GET", "/");
    expect(root.status).toBe(200);
    expect(root.headers.get("x-elastic-product")).toBe("Elasticsearch");
    expect(root.json.version.number).toMatch(/^(8|9)\.\d+\.\d+$/);
    expect(root.json.version.build_flavor).toBe("default");
    expect(root.json.tagline).toBe("You Know, for Search");
    expect((await send("HEAD", "/")).status).toBe(200);
  });

  test("every reply carries the product header, errors too", async () => {
    expect((await send("GET", `/${target.newName()}`)).headers.get("x-elastic-product")).toBe("Elasticsearch");
    expect((await send("GET", "/a/b/c/d")).headers.get("x-elastic-product")).toBe("Elasticsearch");
  });

  test("the media type that is asked for is the media type of the reply", async () => {
    const { index } = await createWordloomIndex(target);
    const [major] = (await client.info()).version.number.split(".");
    const accept = `application/vnd.elasticsearch+json; compatible-with=${major}`;
    const info = await client.transport.request(
      { method: "GET", path: `/${index}/_count` },
      { meta: true, headers: { accept } },
    );
    expect(info.headers["content-type"]).toBe(accept.replace(" ", ""));
  });

  test("health is green when no replica is wanted", async () => {
    const { index } = await createWordloomIndex(target);
    const health = await client.cluster.health({ index, wait_for_status: "green", timeout: "10s" });
    expect(health.status).toBe("green");
    expect(health.timed_out).toBe(false);
    expect(health.number_of_nodes).toBe(1);
  });

  test("health is yellow while a replica has no node to live on", async () => {
    const index = target.newName();
    await client.indices.create({
      index,
      settings: { number_of_shards: 1, number_of_replicas: 1 },
      wait_for_active_shards: 1,
    });
    const health = await client.cluster.health({ index, wait_for_status: "yellow", timeout: "10s" });
    expect(health.status).toBe("yellow");
    expect(health.unassigned_shards).toBe(1);
  });

  test("an index is made with settings, mapping and alias, and shows them", async () => {
    const { alias, index } = await createWordloomIndex(target);
    const shown = (await send("GET", `/${alias}`)).json[index];
    expect(shown.aliases).toEqual({ [alias]: { is_write_index: true } });
    expect(shown.mappings).toEqual(wordloomIndex.mappings);
    expect(shown.settings.index).toMatchObject({
      number_of_shards: "1",
      number_of_replicas: "0",
      gc_deletes: "24h",
      refresh_interval: "1s",
      provided_name: index,
      uuid: expect.stringMatching(/^[A-Za-z0-9_-]{22}$/),
    });
    expect((await send("GET", `/${index}/_mapping`)).json).toEqual({ [index]: { mappings: wordloomIndex.mappings } });
    expect((await send("HEAD", `/${index}`)).status).toBe(200);
    expect((await send("HEAD", `/${alias}`)).status).toBe(200);
  });

  test("making an index acknowledges it by name", async () => {
    const index = target.newName();
    const created = await send("PUT", `/${index}`, wordloomIndex);
    expect(created.json).toEqual({ acknowledged: true, shards_acknowledged: true, index });
  });

  test("an index that is there already is refused with its uuid", async () => {
    const { index } = await createWordloomIndex(target);
    const again = await send("PUT", `/${index}`, wordloomIndex);
    expect(again.status).toBe(400);
    expect(again.json.error.type).toBe("resource_already_exists_exception");
    expect(again.json.error.reason).toBe(`index [${index}/${again.json.error.index_uuid}] already exists`);
  });

  test("a name that an alias has cannot be an index", async () => {
    const { alias } = await createWordloomIndex(target);
    const taken = await send("PUT", `/${alias}`);
    expect(taken.status).toBe(400);
    expect(taken.json.error.type).toBe("invalid_index_name_exception");
    expect(taken.json.error.reason).toBe(`Invalid index name [${alias}], already exists as alias`);
  });

  test.each([
    ["Upper", "must be lowercase"],
    ["_under", "must not start with '_', '-', or '+'"],
    ["-minus", "must not start with '_', '-', or '+'"],
    ["a,b", "must not contain the following characters [' ','\"','*',',','/','<','>','?','\\','|']"],
    ["a b", "must not contain the following characters [' ','\"','*',',','/','<','>','?','\\','|']"],
    ["a#b", "must not contain '#'"],
    ["a:b", "must not contain ':'"],
  ])("the index name %j is refused", async (name, reason) => {
    const refused = await send("PUT", `/${encodeURIComponent(name)}`);
    expect(refused.status).toBe(400);
    expect(refused.json.error.type).toBe("invalid_index_name_exception");
    expect(refused.json.error.reason).toBe(`Invalid index name [${name}], ${reason}`);
  });

  test("an unknown index is a 404 that names it", async () => {
    const index = target.newName();
    for (const [method, path] of [
      ["GET", ""],
      ["DELETE", ""],
      ["GET", "/_settings"],
      ["GET", "/_mapping"],
      ["GET", "/_search"],
      ["GET", "/_count"],
      ["GET", "/_doc/1"],
      ["POST", "/_refresh"],
    ] as const) {
      const missing = await send(method, `/${index}${path}`);
      expect([path, missing.status, missing.json.error.type, missing.json.error.index]).toEqual([
        path,
        404,
        "index_not_found_exception",
        index,
      ]);
      expect(missing.json.error.reason).toBe(`no such index [${index}]`);
    }
    expect((await send("HEAD", `/${index}`)).status).toBe(404);
  });

  test("a deleted index is gone, and an alias is no name to delete by", async () => {
    const { alias, index } = await createWordloomIndex(target);
    const byAlias = await send("DELETE", `/${alias}`);
    expect([byAlias.status, byAlias.json.error.type]).toEqual([400, "illegal_argument_exception"]);
    expect((await send("DELETE", `/${index}`)).json).toEqual({ acknowledged: true });
    expect((await send("HEAD", `/${index}`)).status).toBe(404);
    expect((await send("HEAD", `/_alias/${alias}`)).status).toBe(404);
  });

  test.each([
    [{ settings: { nonsense: 1 } }, "illegal_argument_exception", /^unknown setting \[index.nonsense\]/],
    [
      { settings: { "index.gc_deletes": "soon" } },
      "illegal_argument_exception",
      /^failed to parse setting \[index.gc_deletes\] with value \[soon\] as a time value/,
    ],
    [{ settings: { number_of_shards: 0 } }, "illegal_argument_exception", /must be >= 1$/],
    [
      { settings: { "index.blocks.write": "perhaps" } },
      "illegal_argument_exception",
      /only \[true\] or \[false\] are allowed/,
    ],
    [{ nonsense: 1 }, "parse_exception", /^unknown key \[nonsense\] for create index$/],
    [
      { mappings: { properties: { a: { type: "nonsense" } } } },
      "mapper_parsing_exception",
      /The mapper type \[nonsense\] declared on field \[a\] does not exist/,
    ],
    [{ mappings: { properties: { a: {} } } }, "mapper_parsing_exception", /No type specified for field \[a\]/],
    [
      { mappings: { properties: { a: { type: "text", analyzer: "nonsense" } } } },
      "mapper_parsing_exception",
      /analyzer \[nonsense\] has not been configured in mappings/,
    ],
    [
      { mappings: { properties: { a: { type: "keyword", nonsense: 1 } } } },
      "mapper_parsing_exception",
      /unknown parameter \[nonsense\] on mapper \[a\] of type \[keyword\]/,
    ],
    [
      { mappings: { dynamic: "nonsense" } },
      "mapper_parsing_exception",
      /Could not convert \[dynamic.dynamic\] to boolean/,
    ],
    [
      { mappings: { nonsense: true } },
      "mapper_parsing_exception",
      /Root mapping definition has unsupported parameters:\s+\[nonsense : true\]/,
    ],
    ["{broken", "x_content_parse_exception", /./],
  ] as const)("an index cannot be made from %j", async (body, type, reason) => {
    const index = target.newName();
    const refused = await send("PUT", `/${index}`, body);
    expect(refused.status).toBe(400);
    expect(refused.json.error.type).toBe(type);
    expect(refused.json.error.reason).toMatch(reason);
    expect((await send("HEAD", `/${index}`)).status).toBe(404);
  });

  test("settings are changed, shown, and put back by null", async () => {
    const { alias, index } = await createWordloomIndex(target);
    const setting = async () => (await send("GET", `/${index}/_settings`)).json[index].settings.index;
    expect(
      (await send("PUT", `/${alias}/_settings`, { index: { gc_deletes: "1h", blocks: { write: true } } })).json,
    ).toEqual({ acknowledged: true });
    expect(await setting()).toMatchObject({ gc_deletes: "1h", blocks: { write: "true" } });
    await send("PUT", `/${index}/_settings`, { "index.blocks.write": null, "index.gc_deletes": null });
    expect((await setting()).blocks?.write).toBeUndefined();
    expect((await setting()).gc_deletes).toBeUndefined();
  });

  test("an unknown setting, none at all, or one that is fixed is refused", async () => {
    const { index } = await createWordloomIndex(target);
    const refusal = async (body: object) => (await send("PUT", `/${index}/_settings`, body)).json.error?.type;
    expect(await refusal({ nonsense: 1 })).toBe("illegal_argument_exception");
    expect(await refusal({ number_of_shards: 2 })).toBe("illegal_argument_exception");
    expect(await refusal({})).toBe("action_request_validation_exception");
  });

  test("a field can be added to a mapping, never changed", async () => {
    const { index } = await createWordloomIndex(target);
    const put = (properties: object) => send("PUT", `/${index}/_mapping`, { properties });
    expect((await put({ extra: { type: "text", analyzer: "cjk" } })).json).toEqual({ acknowledged: true });
    expect((await send("GET", `/${index}/_mapping`)).json[index].mappings.properties.extra).toEqual({
      type: "text",
      analyzer: "cjk",
    });
    const retyped = await put({ title: { type: "keyword" } });
    expect([retyped.status, retyped.json.error.reason]).toEqual([
      400,
      "mapper [title] cannot be changed from type [text] to [keyword]",
    ]);
    const reanalyzed = await put({ title: { type: "text" } });
    expect(reanalyzed.json.error.reason).toContain("Cannot update parameter [analyzer] from [cjk] to [default]");
    const added = await target.bulk(`/${index}/_bulk?refresh=true`, { index: { _id: "1" } }, { extra: "所有权" });
    expect(added.json.errors).toBe(false);
    expect((await client.count({ index, query: { match: { extra: "所有" } } })).count).toBe(1);
  });

  test("notes of a mapping are kept until others take their place, and change no field", async () => {
    const { index } = await createWordloomIndex(target);
    const put = async (body: object) => (await send("PUT", `/${index}/_mapping`, body)).json;
    const shown = async () => (await send("GET", `/${index}/_mapping`)).json[index].mappings;
    expect(await put({ _meta: { env: "dev", of: { depth: 2 } } })).toEqual({ acknowledged: true });
    expect(await shown()).toEqual({ ...wordloomIndex.mappings, _meta: { env: "dev", of: { depth: 2 } } });
    await put({ properties: { extra: { type: "keyword" } } });
    expect((await shown())["_meta"]).toEqual({ env: "dev", of: { depth: 2 } });
    await put({ _meta: { env: "prod" } });
    expect((await shown())["_meta"]).toEqual({ env: "prod" });
  });

  test("an alias moves from one index to another in one step", async () => {
    const { alias, index } = await createWordloomIndex(target);
    const next = `${alias}-000002`;
    await send("PUT", `/${next}`, wordloomIndex);
    const moved = await send("POST", "/_aliases", {
      actions: [{ remove: { index, alias } }, { add: { index: next, alias, is_write_index: true } }],
    });
    expect(moved.json).toEqual({ acknowledged: true, errors: false });
    expect((await send("GET", `/_alias/${alias}`)).json).toEqual({
      [next]: { aliases: { [alias]: { is_write_index: true } } },
    });
  });

  test("an index is removed and its name made an alias in one step", async () => {
    const { alias, index } = await createWordloomIndex(target);
    const next = `${alias}-000002`;
    await send("PUT", `/${next}`, wordloomIndex);
    const moved = await send("POST", "/_aliases", {
      actions: [{ remove_index: { index } }, { add: { index: next, alias: index } }],
    });
    expect(moved.json.acknowledged).toBe(true);
    expect((await send("GET", `/_alias/${index}`)).json).toEqual({ [next]: { aliases: { [index]: {} } } });
  });

  test("one wrong action undoes all of them", async () => {
    const { alias, index } = await createWordloomIndex(target);
    const refused = await send("POST", "/_aliases", {
      actions: [{ remove: { index, alias } }, { add: { index: target.newName(), alias } }],
    });
    expect([refused.status, refused.json.error.type]).toEqual([404, "index_not_found_exception"]);
    expect((await send("HEAD", `/_alias/${alias}`)).status).toBe(200);
  });

  test("an alias action must be known and complete", async () => {
    const { index } = await createWordloomIndex(target);
    const refusal = async (actions: object[]) => {
      const { status, json } = await send("POST", "/_aliases", { actions });
      return [status, json.error.type];
    };
    expect(await refusal([])).toEqual([400, "illegal_argument_exception"]);
    expect(await refusal([{ nonsense: {} }])).toEqual([400, "x_content_parse_exception"]);
    expect(await refusal([{ add: { index } }])).toEqual([400, "x_content_parse_exception"]);
    expect(await refusal([{ add: { index, alias: "A B" } }])).toEqual([400, "invalid_alias_name_exception"]);
    expect(await refusal([{ add: { index, alias: index } }])).toEqual([400, "invalid_alias_name_exception"]);
    expect(await refusal([{ remove: { index, alias: target.newName() } }])).toEqual([
      404,
      "aliases_not_found_exception",
    ]);
  });

  test("a missing alias is told in a plain sentence", async () => {
    const name = target.newName();
    const missing = await send("GET", `/_alias/${name}`);
    expect(missing.status).toBe(404);
    expect(missing.json).toEqual({ error: `alias [${name}] missing`, status: 404 });
    expect((await send("HEAD", `/_alias/${name}`)).status).toBe(404);
  });

  test("an unknown path, a wrong method and an unknown parameter are told apart", async () => {
    const { index } = await createWordloomIndex(target);
    const path = await send("GET", "/a/b/c/d");
    expect([path.status, path.json]).toEqual([400, { error: "no handler found for uri [/a/b/c/d] and method [GET]" }]);
    const method = await send("DELETE", "/_bulk");
    expect([method.status, method.json.error]).toEqual([
      405,
      "Incorrect HTTP method for uri [/_bulk] and method [DELETE], allowed: [POST, PUT]",
    ]);
    const parameter = await send("GET", `/${index}/_search?nonsense=1`);
    expect([parameter.status, parameter.json.error.reason]).toEqual([
      400,
      `request [/${index}/_search] contains unrecognized parameter: [nonsense]`,
    ]);
  });

  test("a body of another media type is refused", async () => {
    const { index } = await createWordloomIndex(target);
    const refused = await fetch(`${client.connectionPool.connections[0]?.url.origin}/${index}/_search`, {
      method: "POST",
      headers: { "content-type": "text/plain" },
      body: "{}",
    });
    expect([refused.status, await refused.json()]).toEqual([
      406,
      { error: "Content-Type header [text/plain] is not supported", status: 406 },
    ]);
  });
});

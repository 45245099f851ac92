import { describe, expect, test } from "bun:test";
import { createWordloomIndex, openTargets } from "./targets.ts";

describe.each(await openTargets())("documents on %s", (_name, target) => {
  const { bulk, send } = target;

  test("a document is read back as it was written, with its version", async () => {
    const { alias, index } = await createWordloomIndex(target);
    const source = '{"title":"所有权 😀","event_version":9007199254740993,"rank_score":1.50}';
    await bulk(
      "/_bulk",
      { index: { _index: alias, _id: "book:1/2 é", version: 11, version_type: "external" } },
      source,
    );
    const found = await send("GET", `/${alias}/_doc/${encodeURIComponent("book:1/2 é")}`);
    expect(found.status).toBe(200);
    expect(found.text).toBe(
      `{"_index":"${index}","_id":"book:1/2 é","_version":11,"_seq_no":0,"_primary_term":1,"found":true,"_source":${source}}`,
    );
    expect((await send("HEAD", `/${alias}/_doc/${encodeURIComponent("book:1/2 é")}`)).status).toBe(200);
  });

  test("a document that is not there is a 404 with found false", async () => {
    const { alias, index } = await createWordloomIndex(target);
    const missing = await send("GET", `/${alias}/_doc/nobody`);
    expect([missing.status, missing.json]).toEqual([404, { _index: index, _id: "nobody", found: false }]);
    expect((await send("HEAD", `/${alias}/_doc/nobody`)).status).toBe(404);
  });

  test("a write is read by id at once, refreshed or not", async () => {
    const { alias } = await createWordloomIndex(target);
    await bulk(`/${alias}/_bulk`, { index: { _id: "a" } }, { title: "a" });
    expect((await send("GET", `/${alias}/_doc/a`)).json.found).toBe(true);
    await bulk(`/${alias}/_bulk`, { delete: { _id: "a" } });
    expect((await send("GET", `/${alias}/_doc/a`)).json.found).toBe(false);
  });

  test("part of the source, or none, can be asked for", async () => {
    const { alias } = await createWordloomIndex(target);
    await bulk(`/${alias}/_bulk`, { index: { _id: "a" } }, { title: "t", text: "x", event_version: 3 });
    expect((await send("GET", `/${alias}/_doc/a?_source=false`)).json["_source"]).toBeUndefined();
    expect((await send("GET", `/${alias}/_doc/a?_source_includes=title,event*`)).json["_source"]).toEqual({
      title: "t",
      event_version: 3,
    });
    expect((await send("GET", `/${alias}/_doc/a?_source_excludes=text`)).json["_source"]).toEqual({
      title: "t",
      event_version: 3,
    });
  });

  test("many are read at once, each found or not, an unknown index the fault of one", async () => {
    const { alias, index } = await createWordloomIndex(target);
    await bulk(`/${alias}/_bulk`, { index: { _id: "a" } }, { title: "t" });
    const byId = await send("POST", `/${alias}/_mget`, { ids: ["a", "b"] });
    expect(byId.json.docs).toEqual([
      { _index: index, _id: "a", _version: 1, _seq_no: 0, _primary_term: 1, found: true, _source: { title: "t" } },
      { _index: index, _id: "b", found: false },
    ]);
    const missing = target.newName();
    const mixed = await send("POST", "/_mget", {
      docs: [
        { _index: alias, _id: "a", _source: false },
        { _index: missing, _id: "a" },
      ],
    });
    expect(mixed.json.docs[0]["_source"]).toBeUndefined();
    expect(mixed.json.docs[1]).toMatchObject({ _index: missing, error: { type: "index_not_found_exception" } });
  });

  test("an empty mget is refused", async () => {
    for (const body of [{}, { docs: [] }]) {
      const refused = await send("POST", "/_mget", body);
      expect([refused.status, refused.json.error.reason]).toEqual([400, "Validation Failed: 1: no documents to get;"]);
    }
    const nameless = await send("POST", "/_mget", { ids: ["a"] });
    expect([nameless.status, nameless.json.error.reason]).toEqual([
      400,
      "Validation Failed: 1: index is missing for doc 0;",
    ]);
  });
});

import { describe, expect, test } from "bun:test";
import { createWordloomIndex, openTargets } from "./targets.ts";

describe.each(await openTargets())("blocks on %s", (_name, target) => {
  const { bulk, send } = target;
  const set = (index: string, settings: object) => send("PUT", `/${index}/_settings`, settings);

  test("index.blocks.write refuses each item with 403 inside a 200 reply, and reading goes on", async () => {
    const { alias, index } = await createWordloomIndex(target);
    await bulk(`/${alias}/_bulk?refresh=true`, { index: { _id: "a" } }, { title: "before" });
    await set(index, { "index.blocks.write": true });
    const reply = await bulk(`/${alias}/_bulk`, { index: { _id: "b" } }, { title: "b" }, { delete: { _id: "a" } });
    expect([reply.status, reply.json.errors]).toEqual([200, true]);
    for (const item of [reply.json.items[0].index, reply.json.items[1].delete]) {
      expect(item).toMatchObject({
        status: 403,
        error: {
          type: "cluster_block_exception",
          reason: `index [${index}] blocked by: [FORBIDDEN/8/index write (api)];`,
        },
      });
    }
    expect((await send("GET", `/${alias}/_doc/a`)).json.found).toBe(true);
    expect((await send("POST", `/${alias}/_count`)).json.count).toBe(1);
    await set(index, { "index.blocks.write": null });
    const after = await bulk(`/${alias}/_bulk`, { index: { _id: "b" } }, { title: "b" });
    expect(after.json.items[0].index.status).toBe(201);
  });

  test("index.blocks.read_only_allow_delete refuses each item with 429", async () => {
    const { alias, index } = await createWordloomIndex(target);
    await set(index, { "index.blocks.read_only_allow_delete": true });
    const reply = await bulk(`/${alias}/_bulk`, { index: { _id: "b" } }, { title: "b" }, { delete: { _id: "a" } });
    expect([reply.status, reply.json.errors]).toEqual([200, true]);
    for (const item of [reply.json.items[0].index, reply.json.items[1].delete]) {
      expect([item.status, item.error.type]).toEqual([429, "cluster_block_exception"]);
      expect(item.error.reason).toStartWith(`index [${index}] blocked by: [TOO_MANY_REQUESTS/12/`);
    }
    await set(index, { "index.blocks.read_only_allow_delete": null });
    expect((await bulk(`/${alias}/_bulk`, { index: { _id: "b" } }, { title: "b" })).json.errors).toBe(false);
  });

  test("index.blocks.read_only refuses writes, aliases and deletion until it is lifted", async () => {
    const { alias, index } = await createWordloomIndex(target);
    await set(index, { "index.blocks.read_only": true });
    const reply = await bulk(`/${alias}/_bulk`, { index: { _id: "b" } }, { title: "b" });
    expect(reply.json.items[0].index).toMatchObject({ status: 403, error: { type: "cluster_block_exception" } });
    const added = await send("POST", "/_aliases", { actions: [{ add: { index, alias: target.newName() } }] });
    expect([added.status, added.json.error.type]).toEqual([403, "cluster_block_exception"]);
    expect((await send("DELETE", `/${index}`)).status).toBe(403);
    await set(index, { "index.blocks.read_only": null });
    expect((await send("DELETE", `/${index}`)).status).toBe(200);
  });

  test("index.blocks.read refuses reading with 403", async () => {
    const { alias, index } = await createWordloomIndex(target);
    await set(index, { "index.blocks.read": true });
    for (const path of ["_search", "_count", "_doc/a"]) {
      const refused = await send("GET", `/${alias}/${path}`);
      expect([path, refused.status, refused.json.error.type]).toEqual([path, 403, "cluster_block_exception"]);
    }
    await set(index, { "index.blocks.read": null });
    expect((await send("GET", `/${alias}/_count`)).status).toBe(200);
  });
});

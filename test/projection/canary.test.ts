import { expect, test } from "bun:test";
import { sendBulk } from "../../src/search/bulk.ts";
import { connect, startScriptedEngine } from "../support/scripted-engine.ts";

test("what the engine quotes of a document is in no reason that we keep", async () => {
  const canary = "canary-77aa";
  const quoting = {
    type: "document_parsing_exception",
    reason: `[1:91] failed to parse field [rank_score] of type [float] in document with id 'tag:1'. Preview of field's value: '${canary}'`,
    caused_by: { type: "number_format_exception", reason: `For input string: "${canary}"` },
  };
  const engine = await startScriptedEngine();
  engine.item = () => ({ status: 400, error: quoting });
  const client = await connect(engine.url);
  const item = { op: "delete", id: "tag:1", version: 1n } as const;
  const body = `{"delete":{"_id":"tag:1","version":1,"version_type":"external"}}\n`;
  const results = await sendBulk(client, "index", [item], body, {
    timeoutMs: 5000,
    signal: new AbortController().signal,
  });
  expect(JSON.stringify(results, (_, v: unknown) => (typeof v === "bigint" ? v.toString() : v))).not.toContain(canary);
  expect(results[0]).toMatchObject({ kind: "answered", status: 400, detail: expect.stringContaining("[rank_score]") });
  await client.close();
  await engine.close();
});

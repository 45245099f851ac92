import { afterAll } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Client } from "@elastic/elasticsearch";
import { startEngine } from "../../src/embedded/elasticsearch/engine.ts";
import { connectElasticsearch } from "../../src/search/client.ts";

/** A search engine that the contract is held against. */
export interface Target {
  readonly name: string;
  readonly client: Client;
  /** One request with nothing in between: status, the body's own text, and that parsed (integers above 2^53 rounded). */
  readonly send: (method: string, path: string, body?: unknown) => Promise<Answer>;
  /** A bulk of these lines: objects, or text where the exact digits matter. */
  readonly bulk: (path: string, ...lines: (object | string)[]) => Promise<Answer>;
  /** A name of its own for an index; the index is deleted when the file's tests are done. */
  readonly newName: () => string;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: the shape of every reply is what the tests are about
  readonly json: any;
}

/** The index as Wordloom makes it. */
export const wordloomIndex = {
  settings: { number_of_shards: 1, number_of_replicas: 0, "index.gc_deletes": "24h", refresh_interval: "1s" },
  mappings: {
    dynamic: "strict",
    properties: {
      entity_type: { type: "keyword" },
      entity_id: { type: "keyword" },
      library_id: { type: "keyword" },
      book_id: { type: "keyword" },
      title: { type: "text", analyzer: "cjk" },
      text: { type: "text", analyzer: "cjk" },
      snippet: { type: "text", index: false },
      rank_score: { type: "float" },
      event_version: { type: "long" },
      updated_at: { type: "date" },
    },
  },
} as const;

/** Makes the index, with an alias of its own that writes to it. */
export async function createWordloomIndex(target: Target): Promise<{ alias: string; index: string }> {
  const alias = target.newName();
  const index = `${alias}-000001`;
  const created = await target.send("PUT", `/${index}`, {
    ...wordloomIndex,
    aliases: { [alias]: { is_write_index: true } },
  });
  if (created.status !== 200) throw new Error(`no index: ${created.text}`);
  return { alias, index };
}

/**
 * The embedded engine always, and every server that ELASTIC_CONTRACT_URL names (several: separated by commas).
 * They are closed, and the indices deleted, when the calling file is done.
 */
export async function openTargets(): Promise<[string, Target][]> {
  const folder = mkdtempSync(join(tmpdir(), "wordloom-contract-"));
  const engine = await startEngine({ dataDir: folder, port: 0 });
  const urls = (process.env["ELASTIC_CONTRACT_URL"] ?? "").split(",").filter((url) => url !== "");
  const run = `contract-${crypto.randomUUID().slice(0, 8)}`;
  const opened = await Promise.all([
    openTarget("embedded", engine.url, run),
    ...urls.map((url) => openTarget("", url, run)),
  ]);
  afterAll(async () => {
    for (const [, target] of opened) {
      const { client } = target;
      const found = await client.indices.get({ index: `${run}-*` }, { ignore: [404] });
      await Promise.all(Object.keys(found).map((index) => client.indices.delete({ index })));
      await client.close();
    }
    await engine.stop();
    rmSync(folder, { recursive: true });
  });
  return opened;
}

async function openTarget(name: string, url: string, run: string): Promise<[string, Target]> {
  const client = await connectElasticsearch({ url, requestTimeoutMs: 20_000 });
  const { version } = await client.info();
  const { origin, username, password } = new URL(url);
  const authorization: Record<string, string> =
    username === "" ? {} : { authorization: `Basic ${btoa(`${username}:${password}`)}` };
  const request = async (method: string, path: string, type: string, body: string | undefined): Promise<Answer> => {
    const headers = { ...authorization, ...(body === undefined ? {} : { "content-type": type }) };
    const reply = await fetch(origin + path, { method, headers, ...(body === undefined ? {} : { body }) });
    const text = await reply.text();
    const json = /json/.test(reply.headers.get("content-type") ?? "") && text !== "" ? JSON.parse(text) : undefined;
    return { status: reply.status, headers: reply.headers, text, json };
  };
  const shown = name === "" ? `Elasticsearch ${version?.number}` : name;
  const target: Target = {
    name: shown,
    client,
    send: (method, path, body) =>
      request(
        method,
        path,
        "application/json",
        body === undefined || typeof body === "string" ? body : JSON.stringify(body),
      ),
    bulk: (path, ...lines) =>
      request(
        "POST",
        path,
        "application/x-ndjson",
        lines.map((line) => `${typeof line === "string" ? line : JSON.stringify(line)}\n`).join(""),
      ),
    newName: () => `${run}-${crypto.randomUUID().slice(0, 8)}`,
  };
  return [shown, target];
}

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { connectElasticsearch } from "../../src/search/client.ts";

/** What one line of a bulk request asks for. */
export type EngineItem = {
  readonly op: "index" | "delete";
  readonly id: string;
  readonly version: bigint;
  readonly source: string | undefined;
};

export type EngineRequest = { readonly items: readonly EngineItem[]; readonly bytes: number };

/** What is said of one item: merged into the answer, whose `_id` is the item's unless given; `op` is the word that it is filed under. */
export type ItemReply = Readonly<Record<string, unknown>>;

/** What is said of a whole request. */
export type Reply =
  | { readonly kind: "items"; readonly items: readonly unknown[] }
  | {
      readonly kind: "raw";
      readonly status: number;
      readonly body: string;
      readonly headers?: Readonly<Record<string, string>>;
    }
  /** Half of the body, then a reset. */
  | { readonly kind: "cut"; readonly body: string }
  /** Half of the body, then nothing more. */
  | { readonly kind: "stall"; readonly body: string }
  /** A reset instead of an answer. */
  | { readonly kind: "reset" }
  /** Never an answer. */
  | { readonly kind: "hang" };

/** The document as it is held; `source` is undefined for a deleted one, whose version is remembered. */
export type Held = { readonly version: bigint; readonly source: string | undefined };

/** An Elasticsearch of a test's own: holds documents with external versions, and answers whatever the test's script says. */
export interface Engine {
  readonly url: string;
  readonly held: Map<string, Held>;
  /** Bulk requests so far, oldest first. */
  readonly requests: EngineRequest[];
  /** Answers a whole request in place of the engine, as late as it likes; undefined lets it answer. */
  whole: (request: EngineRequest) => Reply | undefined | Promise<Reply | undefined>;
  /** Answers one item in place of the engine; undefined lets it answer. */
  item: (item: EngineItem) => ItemReply | undefined;
  /** Whether the alias is there. */
  alias: boolean;
  /** Carries a request out, as `whole` may want to before it answers something else. */
  carryOut(request: EngineRequest): readonly unknown[];
  /** Back to a healthy, empty engine. */
  reset(): void;
  /** Refuses connections from now on, dropping those that are open; `listen` takes them again on the same port. */
  refuse(): Promise<void>;
  listen(): Promise<void>;
  close(): Promise<void>;
}

const product = { "x-elastic-product": "Elasticsearch" };
const json = { ...product, "content-type": "application/vnd.elasticsearch+json;compatible-with=9" };

/** Reads NDJSON without losing a digit of a version. */
function parseItems(body: string): EngineItem[] {
  const lines = body.split("\n");
  const items: EngineItem[] = [];
  for (let at = 0; at < lines.length - 1; at += 1) {
    const line = lines[at] ?? "";
    const action = JSON.parse(line) as Record<string, Record<string, unknown>>;
    const [op, meta] = Object.entries(action)[0] ?? [];
    if ((op !== "index" && op !== "delete") || meta?.["version_type"] !== "external")
      throw new Error(`not an action that the product sends: ${line}`);
    if (op === "index") at += 1;
    items.push({
      op,
      id: String(meta["_id"]),
      version: BigInt(/"version":(\d+)/.exec(line)?.[1] ?? "-1"),
      source: op === "index" ? lines[at] : undefined,
    });
  }
  return items;
}

/** A failed item's answer. */
export const itemError = (status: number, type: string, reason: string): ItemReply => ({
  status,
  error: { type, reason },
});

/** A failed request's answer, in Elasticsearch's words. */
export const requestError = (
  status: number,
  type: string,
  reason: string,
  headers: Readonly<Record<string, string>> = {},
): Reply => ({
  kind: "raw",
  status,
  body: JSON.stringify({ error: { type, reason, root_cause: [{ type, reason }] }, status }),
  headers: { ...json, ...headers },
});

export async function startScriptedEngine(): Promise<Engine> {
  const held = new Map<string, Held>();

  function apply({ op, id, version, source }: EngineItem): Record<string, unknown> {
    const before = held.get(id);
    if (before !== undefined && before.version >= version)
      return {
        status: 409,
        error: {
          type: "version_conflict_engine_exception",
          reason: `[${id}]: version conflict, current version [${before.version}] is higher or equal to the one provided [${version}]`,
        },
      };
    held.set(id, { version, source });
    const was = before?.source !== undefined;
    if (op === "delete") return was ? { status: 200, result: "deleted" } : { status: 404, result: "not_found" };
    return was ? { status: 200, result: "updated" } : { status: 201, result: "created" };
  }

  const engine: Omit<Engine, "url" | "refuse" | "listen" | "close"> = {
    held,
    requests: [],
    whole: () => undefined,
    item: () => undefined,
    alias: true,
    carryOut: (request) =>
      request.items.map((item) => {
        const { op = item.op, ...said } = engine.item(item) ?? apply(item);
        return { [String(op)]: { _index: "scripted-000001", _id: item.id, ...said } };
      }),
    reset: () => {
      held.clear();
      engine.requests.length = 0;
      engine.whole = () => undefined;
      engine.item = () => undefined;
      engine.alias = true;
    },
  };

  async function bulk(text: string): Promise<Reply> {
    const request = { items: parseItems(text), bytes: Buffer.byteLength(text) };
    engine.requests.push(request);
    return (await engine.whole(request)) ?? { kind: "items", items: engine.carryOut(request) };
  }

  function send(res: ServerResponse, reply: Reply): void {
    switch (reply.kind) {
      case "items":
        res.writeHead(200, json).end(JSON.stringify({ took: 1, errors: false, items: reply.items }));
        return;
      case "raw":
        res.writeHead(reply.status, { ...(reply.headers ?? json) }).end(reply.body);
        return;
      case "cut":
      case "stall":
        res.writeHead(200, { ...json, "content-length": String(Buffer.byteLength(reply.body)) });
        res.write(reply.body.slice(0, reply.body.length / 2), () => {
          if (reply.kind === "cut") res.socket?.destroy();
        });
        return;
      case "reset":
        res.socket?.destroy();
        return;
      case "hang":
        return;
      default:
        reply satisfies never;
    }
  }

  async function answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const path = new URL(req.url ?? "/", "http://engine").pathname;
    if (req.method === "HEAD" && path.startsWith("/_alias/")) {
      res.writeHead(engine.alias ? 200 : 404, json).end();
      return;
    }
    const chunks: Buffer[] = [];
    for await (const chunk of req) chunks.push(chunk as Buffer);
    if (path.endsWith("/_mapping"))
      res.writeHead(200, json).end(JSON.stringify({ "scripted-000001": { mappings: { _meta: { env: "test" } } } }));
    else if (path.endsWith("/_bulk")) send(res, await bulk(Buffer.concat(chunks).toString()));
    else res.writeHead(200, json).end(JSON.stringify({ version: { number: "9.2.2" } }));
  }

  const open = (port: number) => {
    const { promise, resolve, reject } = Promise.withResolvers<ReturnType<typeof createServer>>();
    const server = createServer(
      (req, res) => void answer(req, res).catch((error: unknown) => res.destroy(error as Error)),
    );
    server.on("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
    return promise;
  };
  let server: ReturnType<typeof createServer> | undefined = await open(0);
  const { port } = server.address() as AddressInfo;
  const refuse = async () => {
    const closing = server;
    server = undefined;
    if (closing === undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    closing.close(() => resolve());
    closing.closeAllConnections();
    await promise;
  };
  return Object.assign(engine, {
    url: `http://127.0.0.1:${port}`,
    refuse,
    listen: async () => {
      server ??= await open(port);
    },
    close: refuse,
  });
}

/** The product's own client. */
export const connect = (url: string) => connectElasticsearch({ url, requestTimeoutMs: 5000 });

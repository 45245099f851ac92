import { mkdtemp, rm } from "node:fs/promises";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DatabaseAddress } from "../../src/db/address.ts";

/** Servers that repeat all that they are told, secrets first. */

/** A way to Postgres on a unix socket that can be shut: then the password is asked for, and quoted in the refusal. */
export async function openDoor(target: DatabaseAddress): Promise<{
  /** For `?host=` of a DATABASE_URL. */
  readonly folder: string;
  /** Passwords that were shown at the shut door. */
  readonly shown: string[];
  /** Cuts every connection and refuses new ones. */
  readonly shut: () => void;
  readonly open: () => void;
  readonly close: () => Promise<void>;
}> {
  const folder = await mkdtemp(join(tmpdir(), "wordloom-door-"));
  const sockets = new Set<Socket>();
  const shown: string[] = [];
  let isOpen = true;
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => socket.destroy());
  };
  const message = (type: string, body: Buffer) => {
    const head = Buffer.from(`${type}0000`);
    head.writeUInt32BE(body.length + 4, 1);
    return Buffer.concat([head, body]);
  };
  const refuse = (near: Socket) => {
    near.once("data", () => {
      near.write(message("R", Buffer.from([0, 0, 0, 3])));
      near.once("data", (answer: Buffer) => {
        const password = answer.subarray(5, -1).toString();
        shown.push(password);
        const fields = { S: "FATAL", V: "FATAL", C: "28P01", M: `no entry with "${password}"`, D: password };
        const text = Object.entries(fields).map(([key, value]) => `${key}${value}\0`);
        near.end(message("E", Buffer.from(`${text.join("")}\0`)));
      });
    });
  };
  const server = createServer((near) => {
    keep(near);
    if (!isOpen) return refuse(near);
    const far =
      target.socketPath === undefined
        ? createConnection({ host: target.host, port: target.port })
        : createConnection({ path: target.socketPath });
    keep(far);
    near.pipe(far).on("close", () => near.destroy());
    far.pipe(near).on("close", () => far.destroy());
  });
  await new Promise<void>((resolve) => server.listen(join(folder, ".s.PGSQL.5432"), resolve));
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    folder,
    shown,
    shut: () => {
      isOpen = false;
      cut();
    },
    open: () => {
      isOpen = true;
    },
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      cut();
      await closed;
      await rm(folder, { recursive: true });
    },
  };
}

/** A request as it came, with all that it says in one text to be quoted: credentials in the clear, path, body. */
export type Asked = { readonly url: URL; readonly body: string; readonly quote: string };
/** In place of the server; "hang" never answers. */
export type Answer = (asked: Asked) => Response | "hang";

const withoutLength = (headers: Headers) => {
  const kept = new Headers(headers);
  for (const name of ["authorization", "host", "content-length", "content-encoding", "accept-encoding", "connection"])
    kept.delete(name);
  return kept;
};

/** A proxy before an HTTP server. What `answer` says goes in place of the server's answer; null lets it answer. */
export function openProxy(upstream: string): {
  readonly port: number;
  /** Every credential that was shown, in the clear. */
  readonly shown: Set<string>;
  answer: (asked: Asked) => Answer | null;
  /** Refuses connections from now on; `listen` takes them again on the same port. */
  readonly refuse: () => Promise<void>;
  readonly listen: () => void;
} {
  const shown = new Set<string>();
  const nothing: (asked: Asked) => Answer | null = () => null;
  const proxy = { answer: nothing };
  const respond = async (request: Request): Promise<Response> => {
    const bytes = await request.bytes();
    const credentials = ["authorization", "x-key"].map((name) => request.headers.get(name) ?? "");
    const [, basic] = /^Basic (.*)$/.exec(credentials[0] ?? "") ?? [];
    const told = `${credentials.join(" ")} ${basic === undefined ? "" : atob(basic)}`;
    shown.add(told);
    const url = new URL(request.url);
    const body = new TextDecoder().decode(bytes);
    const asked = { url, body, quote: `${told} ${url.pathname}${url.search} ${body}` };
    const said = proxy.answer(asked)?.(asked);
    if (said === "hang") return await new Promise<Response>(() => undefined);
    if (said !== undefined) return said;
    const answer = await fetch(`${upstream}${url.pathname}${url.search}`, {
      method: request.method,
      headers: withoutLength(request.headers),
      ...(bytes.length === 0 ? {} : { body: bytes }),
    });
    return new Response(await answer.bytes(), { status: answer.status, headers: withoutLength(answer.headers) });
  };
  const serve = (port: number) => Bun.serve({ hostname: "127.0.0.1", port, idleTimeout: 0, fetch: respond });
  let server = serve(0);
  const port = server.port ?? 0;
  return Object.assign(proxy, {
    port,
    shown,
    refuse: () => server.stop(true),
    listen: () => {
      server = serve(port);
    },
  });
}

/** No answer, ever. */
export const hang: Answer = () => "hang";

const product = { "x-elastic-product": "Elasticsearch" };
const json = { ...product, "content-type": "application/vnd.elasticsearch+json;compatible-with=9" };

/** A page of something that is not Elasticsearch, which shows the request that it did not like. */
export const page =
  (status: number): Answer =>
  ({ quote }) =>
    new Response(`${quote}\n<html>${quote}</html>`, { status, headers: { "content-type": "text/html", ...product } });

/** A refusal of the whole request in Elasticsearch's form, with words that quote all of it. */
export const refusal =
  (status: number, type: string): Answer =>
  ({ quote }) => {
    const error = { type, reason: `because of ${quote}` };
    const causes = { root_cause: [error], caused_by: { ...error, caused_by: error } };
    return new Response(JSON.stringify({ error: { ...error, ...causes }, status }), { status, headers: json });
  };

/** What Elasticsearch says of a value that does not fit, in the forms that it has, and in one that it does not have yet. */
type Quoting = (value: string) => Readonly<Record<string, unknown>>;
export const quoting = {
  field: (value) => ({
    type: "document_parsing_exception",
    reason: `[1:91] failed to parse field [title] of type [date] in document with id 'x'. Preview of field's value: '${value}'`,
    caused_by: {
      type: "illegal_argument_exception",
      reason: `failed to parse date field [${value}] with format [strict_date]`,
      caused_by: { type: "date_time_parse_exception", reason: `Failed to parse with all enclosed parsers: ${value}` },
    },
  }),
  token: (value) => ({
    type: "mapper_parsing_exception",
    reason: "failed to parse",
    caused_by: { type: "x_content_parse_exception", reason: `[1:7] Unrecognized token '${value}'` },
  }),
  immense: (value) => ({
    type: "illegal_argument_exception",
    reason: `Document contains at least one immense term in field="text". The prefix of the first immense term is: '[${Array.from(Buffer.from(value)).join(", ")}]...', original message: ${value}`,
  }),
  strict: (value) => ({
    type: "strict_dynamic_mapping_exception",
    reason: `[1:2] mapping set to strict, dynamic introduction of [${value}] within [_doc] is not allowed`,
  }),
  unknown: (value) => ({ type: "a_type_of_tomorrow", reason: value, caused_by: { type: value, reason: value } }),
  nameless: (value) => ({ type: value, reason: value }),
} satisfies Record<string, Quoting>;

/** Answers each item of a bulk request with a status and an error that quotes its document. */
export const items =
  (status: number, error: Quoting): Answer =>
  ({ body }) => {
    const lines = body.trimEnd().split("\n");
    const said: Record<string, unknown>[] = [];
    for (let at = 0; at < lines.length; at += 1) {
      const action = JSON.parse(lines[at] ?? "") as Record<string, { _id: string }>;
      const [op = "", meta] = Object.entries(action)[0] ?? [];
      if (op === "index") at += 1;
      const document = op === "index" ? (lines[at] ?? "") : "";
      said.push({ [op]: { _index: "i-000001", _id: meta?.["_id"], status, error: error(document) } });
    }
    return new Response(JSON.stringify({ took: 1, errors: true, items: said }), { headers: json });
  };

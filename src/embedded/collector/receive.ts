import { gunzipSync, inflateSync, zstdDecompressSync } from "node:zlib";
import { codeOf } from "../../errors.ts";
import { MalformedPayload, type ResourceSpans } from "./otlp.ts";
import { decodeJson } from "./otlp-json.ts";
import { acceptedProtobuf, decodeProtobuf, encodeStatus } from "./otlp-protobuf.ts";
import type { Store } from "./store.ts";

/** The OpenTelemetry collector's max_request_body_size, in bytes; it holds for what is unpacked too. */
export const maxBodyBytes = 20 * 1024 * 1024;

/** google.rpc.Code */
const [invalidArgument, internal] = [3, 13];

type Encoding = {
  readonly type: string;
  readonly decode: (body: Uint8Array) => readonly ResourceSpans[];
  readonly accepted: string | Uint8Array<ArrayBuffer>;
  readonly fault: (code: number, message: string) => string | Uint8Array<ArrayBuffer>;
};

const json: Encoding = {
  type: "application/json",
  decode: (body) => decodeJson(new TextDecoder().decode(body)),
  accepted: JSON.stringify({ partialSuccess: {} }),
  fault: (code, message) => JSON.stringify({ code, message }),
};
const protobuf: Encoding = {
  type: "application/x-protobuf",
  decode: decodeProtobuf,
  accepted: acceptedProtobuf,
  fault: encodeStatus,
};

/** OTLP/HTTP for traces: the spans are stored, and found by searches, when the 200 goes out. */
export async function receiveTraces(store: Store, request: Request): Promise<Response> {
  if (request.method !== "POST") return plain(405, "method not allowed, supported: [POST]");
  const mediaType = request.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
  const encoding = [json, protobuf].find(({ type }) => type === mediaType);
  if (encoding === undefined) return plain(415, `unsupported media type, supported: [${json.type}, ${protobuf.type}]`);
  const answer = (status: number, body: string | Uint8Array<ArrayBuffer>) =>
    new Response(body, { status, headers: { "content-type": encoding.type } });
  try {
    const body = unpack(await request.bytes(), request.headers.get("content-encoding"));
    store.write(encoding.decode(body));
    return answer(200, encoding.accepted);
  } catch (fault) {
    if (fault instanceof MalformedPayload) return answer(400, encoding.fault(invalidArgument, fault.message));
    return answer(500, encoding.fault(internal, String(fault)));
  }
}

const plain = (status: number, message: string) =>
  new Response(`${status} ${message}`, { status, headers: { "content-type": "text/plain" } });

const unpackers: Readonly<Record<string, (body: Uint8Array, options: { maxOutputLength: number }) => Uint8Array>> = {
  gzip: gunzipSync,
  deflate: inflateSync,
  zlib: inflateSync,
  zstd: zstdDecompressSync,
};

function unpack(body: Uint8Array, encoding: string | null): Uint8Array {
  if (body.length > maxBodyBytes) throw new MalformedPayload("http: request body too large");
  if (encoding === null || encoding === "" || encoding === "identity") return body;
  const unpacker = Object.hasOwn(unpackers, encoding) ? unpackers[encoding] : undefined;
  if (unpacker === undefined) throw new MalformedPayload(`unsupported Content-Encoding: ${encoding}`);
  try {
    return unpacker(body, { maxOutputLength: maxBodyBytes });
  } catch (cause) {
    const tooLarge = codeOf(cause) === "ERR_BUFFER_TOO_LARGE";
    throw new MalformedPayload(tooLarge ? "http: request body too large" : "unexpected EOF", { cause });
  }
}

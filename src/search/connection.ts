import {
  type ConnectionRequestOptions,
  type ConnectionRequestOptionsAsStream,
  type ConnectionRequestParams,
  type ConnectionRequestResponse,
  type ConnectionRequestResponseAsStream,
  errors,
  HttpConnection,
} from "@elastic/elasticsearch";

/** Reads a body to its end, or until `ended` fires; then the socket is closed. */
function readBody(body: ConnectionRequestResponseAsStream["body"], ended: AbortSignal): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  const cutOff = () => {
    reject(new errors.TimeoutError("Request timed out while its answer was read"));
    body.destroy();
  };
  body.on("data", (chunk: Buffer) => chunks.push(chunk));
  body.on("end", () => resolve(Buffer.concat(chunks)));
  const lost = () => reject(new errors.ConnectionError("Connection closed while reading the body"));
  body.on("error", lost);
  body.on("close", lost);
  if (ended.aborted) cutOff();
  else ended.addEventListener("abort", cutOff, { once: true });
  return promise.finally(() => ended.removeEventListener("abort", cutOff));
}

/**
 * The client's HttpConnection with a deadline for the whole request. The original stops listening to its timeout and to its AbortSignal once the headers are there:
 * a server that stalls in the middle of a body would hold a request for ever, far past the lease that it was sent under.
 */
export class DeadlineConnection extends HttpConnection {
  override request(
    params: ConnectionRequestParams,
    options: ConnectionRequestOptions,
  ): Promise<ConnectionRequestResponse>;
  override request(
    params: ConnectionRequestParams,
    options: ConnectionRequestOptionsAsStream,
  ): Promise<ConnectionRequestResponseAsStream>;
  override async request(
    params: ConnectionRequestParams,
    options: ConnectionRequestOptions | ConnectionRequestOptionsAsStream,
  ): Promise<ConnectionRequestResponse | ConnectionRequestResponseAsStream> {
    if ("asStream" in options) return await super.request(params, options);
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(), options.timeout ?? this.timeout ?? 30_000);
    const signal = options.signal ? AbortSignal.any([timeout.signal, options.signal]) : timeout.signal;
    try {
      const answer = await super.request(params, { ...options, signal, asStream: true });
      return { ...answer, body: await readBody(answer.body, signal) };
    } finally {
      clearTimeout(timer);
    }
  }
}

import { Client, errors, Transport } from "@elastic/elasticsearch";
import { DeadlineConnection } from "./connection.ts";

export interface ElasticsearchOptions {
  /** `http(s)://[user:password@]host:port`. */
  readonly url: string;
  /** Instead of user and password. */
  readonly apiKey?: string;
  /** The deadline of every request, in milliseconds. Nothing is retried: the caller's lease decides about that. */
  readonly requestTimeoutMs: number;
}

/**
 * A client for the Elasticsearch at `url`, which speaks the media type of the server's own version, 8.x or 9.x. One that does not answer yet gets the words of 8.x, which both
 * understand: a process must be able to start, and to keep its events, while the engine is down. Throws for a server of another kind or version, and for refused credentials;
 * no message holds the credentials.
 */
export async function connectElasticsearch(options: ElasticsearchOptions): Promise<Client> {
  const { node, auth } = splitCredentials(options);
  const base = {
    node: node.href,
    ...(auth === undefined ? {} : { auth }),
    // The client's default connection is undici's, which fails on every reply under Bun.
    Connection: DeadlineConnection,
    maxRetries: 0,
    requestTimeout: options.requestTimeoutMs,
  };
  const probe = new Client({ ...base, Transport: Transport8 });
  const major = await majorVersion(probe, node);
  if (major !== 9) return probe;
  await probe.close();
  return new Client(base);
}

/** Asks in the words of 8.x, which 9.x understands too: the reverse is not true. */
class Transport8 extends Transport {
  constructor(options: ConstructorParameters<typeof Transport>[0]) {
    super({
      ...options,
      vendoredHeaders: {
        jsonContentType: "application/vnd.elasticsearch+json; compatible-with=8",
        ndjsonContentType: "application/vnd.elasticsearch+x-ndjson; compatible-with=8",
        accept: "application/vnd.elasticsearch+json; compatible-with=8,text/plain",
      },
    });
  }
}

/** Whether the engine, or what stands before it, may be back in a moment. */
export function mayComeBack(error: unknown): boolean {
  if (error instanceof errors.ResponseError) return error.statusCode === 429 || (error.statusCode ?? 0) >= 500;
  return (
    error instanceof errors.ConnectionError ||
    error instanceof errors.TimeoutError ||
    error instanceof errors.NoLivingConnectionsError
  );
}

/** The engine's name for an error; null if there is none, or if it is not a name: anything else could be there. */
export function errorTypeOf(error: object): string | null {
  const type: unknown = "type" in error ? error.type : undefined;
  return typeof type === "string" && /^[a-z][a-z0-9_]{0,79}$/.test(type) ? type : null;
}

/** What went wrong between us and the engine, in one line. For an answer, only its status and the name of the error: the rest may quote documents, queries and credentials. */
export function describeFailure(error: unknown): string {
  if (error instanceof errors.ResponseError) {
    const body: unknown = error.meta.body;
    const problem: unknown = typeof body === "object" && body !== null && "error" in body ? body.error : undefined;
    const type = typeof problem === "object" && problem !== null ? errorTypeOf(problem) : null;
    return type === null ? `HTTP ${error.statusCode}` : `HTTP ${error.statusCode} ${type}`;
  }
  return error instanceof Error ? (error.message.split("\n")[0] ?? "") : "unknown error";
}

async function majorVersion(client: Client, node: URL): Promise<number | null> {
  const answer = await client.info().catch((error: unknown) => {
    if (mayComeBack(error)) return null;
    throw error;
  });
  if (answer === null) return null;
  const { version } = answer;
  const major = Number.parseInt(version?.number ?? "", 10);
  if (major === 8 || major === 9) return major;
  await client.close();
  throw new Error(`Elasticsearch 8 or 9 is required; ${node.host} answers as version ${version?.number ?? "unknown"}`);
}

function splitCredentials({ url, apiKey }: ElasticsearchOptions) {
  // The constructor's own error would quote the text, password and all.
  if (!URL.canParse(url)) throw new Error("the Elasticsearch URL is not a URL");
  const node = new URL(url);
  const username = decodeURIComponent(node.username);
  const password = decodeURIComponent(node.password);
  node.username = "";
  node.password = "";
  if (apiKey !== undefined) return { node, auth: { apiKey } };
  return { node, auth: username === "" ? undefined : { username, password } };
}

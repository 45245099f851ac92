import { Client, HttpConnection, Transport } from "@elastic/elasticsearch";

export interface ElasticsearchOptions {
  /** `http(s)://[user:password@]host:port`. */
  readonly url: string;
  /** Instead of user and password. */
  readonly apiKey?: string;
  /** The deadline of every request, in milliseconds. Nothing is retried: the caller's lease decides about that. */
  readonly requestTimeoutMs: number;
}

/**
 * A client for the Elasticsearch at `url`, after seeing that one answers there and which version it speaks: 9.x, or 8.x
 * with its own media type. Throws the client's own errors (ConnectionError, TimeoutError, ResponseError) while it cannot
 * be reached, and an Error for a server of another kind; no message holds the credentials.
 */
export async function connectElasticsearch(options: ElasticsearchOptions): Promise<Client> {
  const { node, auth } = splitCredentials(options);
  const base = {
    node: node.href,
    ...(auth === undefined ? {} : { auth }),
    // The default connection is undici's, which fails on every reply under Bun.
    Connection: HttpConnection,
    maxRetries: 0,
    requestTimeout: options.requestTimeoutMs,
  };
  const probe = new Client({ ...base, Transport: Transport8 });
  const major = await majorVersion(probe, node);
  if (major === 8) return probe;
  await probe.close();
  return new Client(base);
}

/** Asks in the words of 8.x, which 9.x understands too: the way round does not hold. */
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

async function majorVersion(client: Client, node: URL): Promise<number> {
  const { version } = await client.info();
  const major = Number.parseInt(version?.number ?? "", 10);
  if (major === 8 || major === 9) return major;
  await client.close();
  throw new Error(`Elasticsearch 8 or 9 is needed; ${node.host} answers as version ${version?.number ?? "unknown"}`);
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

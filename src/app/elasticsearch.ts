import { join } from "node:path";
import type { Client } from "@elastic/elasticsearch";
import { joinEngine } from "../embedded/elasticsearch/join.ts";
import { CommandError } from "../errors.ts";
import { connectElasticsearch } from "../search/client.ts";
import { ensureIndex } from "../search/indices.ts";
import type { Settings } from "./settings.ts";

/** Where Elasticsearch is, without credentials. */
const shown = (url: string) => {
  const { protocol, host } = new URL(url);
  return `${protocol}//${host}`;
};

/** What the client or the engine says, in one line. */
const wordsOf = (error: unknown) => (error instanceof Error ? (error.message.split("\n")[0] ?? "") : "unknown error");

async function startEmbedded({ config, dataDir }: Settings, resources: AsyncDisposableStack): Promise<string> {
  const port = config.EMBEDDED_ELASTIC_PORT;
  try {
    const engine = await joinEngine({ dataDir: join(dataDir, "elasticsearch"), port });
    resources.defer(() => engine.stop());
    return engine.url;
  } catch (error) {
    const taken = error instanceof Error && "code" in error && error.code === "EADDRINUSE";
    throw new CommandError(
      "failed",
      taken
        ? `port ${port} of the embedded search engine is in use; set EMBEDDED_ELASTIC_PORT to a free one, or ELASTIC_URL`
        : `${wordsOf(error)}; set WORDLOOM_DATA_DIR, EMBEDDED_ELASTIC_PORT or ELASTIC_URL`,
      { cause: error },
    );
  }
}

/**
 * A client for Elasticsearch, starting the embedded engine where none is given; both are released with `resources`.
 * Throws a CommandError when it does not answer (exit 4).
 */
export async function reachElasticsearch(settings: Settings, resources: AsyncDisposableStack): Promise<Client> {
  const { config } = settings;
  const url = config.ELASTIC_URL ?? (await startEmbedded(settings, resources));
  try {
    const client = await connectElasticsearch({
      url,
      requestTimeoutMs: config.ELASTIC_REQUEST_TIMEOUT_MS,
      ...(config.ELASTIC_API_KEY === undefined ? {} : { apiKey: config.ELASTIC_API_KEY }),
    });
    resources.defer(() => client.close());
    return client;
  } catch (error) {
    throw new CommandError(
      "unreachable",
      `Elasticsearch at ${shown(url)} cannot be used (${wordsOf(error)}); start it or correct ELASTIC_URL`,
      { cause: error },
    );
  }
}

/** Makes sure that the search index is there. Throws a CommandError when only an operator can make it so. */
export async function prepareIndex(client: Client, { config, index }: Settings): Promise<void> {
  let outcome: Awaited<ReturnType<typeof ensureIndex>>;
  try {
    outcome = await ensureIndex(client, index);
  } catch (error) {
    throw new CommandError(
      "unreachable",
      `the index ${index} cannot be created (${wordsOf(error)}); correct ${config.ELASTIC_URL === undefined ? "ELASTIC_INDEX" : "ELASTIC_URL or ELASTIC_INDEX"}`,
      { cause: error },
    );
  }
  if (typeof outcome === "object") throw new CommandError("refused", outcome.detail);
}

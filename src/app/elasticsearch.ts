import { join } from "node:path";
import type { Client } from "@elastic/elasticsearch";
import { joinEngine } from "../embedded/elasticsearch/join.ts";
import { CommandError, codeOf } from "../errors.ts";
import { pause } from "../pause.ts";
import { hasDocuments } from "../projection/search/document.ts";
import { connectElasticsearch, describeFailure, mayComeBack } from "../search/client.ts";
import { ensureIndex } from "../search/indices.ts";
import { indexWithoutDocuments, type Sinks } from "../telemetry/signals.ts";
import type { Settings } from "./settings.ts";
import type { Store } from "./store.ts";

/** Where a server is, without credentials. */
export const shown = (url: string) => {
  const { protocol, host } = new URL(url);
  return `${protocol}//${host}`;
};

/** The configured Elasticsearch, or else the embedded engine, which is started and released with `resources`. Throws a CommandError when that cannot start. */
export const elasticsearchUrl = async (settings: Settings, resources: AsyncDisposableStack): Promise<string> =>
  settings.config.ELASTIC_URL ?? (await startEmbedded(settings, resources));

async function startEmbedded({ config, dataDir }: Settings, resources: AsyncDisposableStack): Promise<string> {
  const port = config.EMBEDDED_ELASTIC_PORT;
  try {
    const engine = await joinEngine({ dataDir: join(dataDir, "elasticsearch"), port });
    resources.defer(() => engine.stop());
    return engine.url;
  } catch (error) {
    const taken = codeOf(error) === "EADDRINUSE";
    throw new CommandError(
      "failed",
      taken
        ? `port ${port} of the embedded search engine is in use; set EMBEDDED_ELASTIC_PORT to a free one, or ELASTIC_URL`
        : `${describeFailure(error)}; set WORDLOOM_DATA_DIR, EMBEDDED_ELASTIC_PORT or ELASTIC_URL`,
      { cause: error },
    );
  }
}

/**
 * A client for Elasticsearch, starting the embedded engine where none is given; both are released with `resources`. An external one may be away:
 * it is found when it is back. Throws a CommandError when it can never be used as it is configured (exit 4).
 */
export async function reachElasticsearch(settings: Settings, resources: AsyncDisposableStack): Promise<Client> {
  return await connectTo(await elasticsearchUrl(settings, resources), settings, resources);
}

/** A client for the Elasticsearch at `url`, released with `resources`. Throws a CommandError when it can never be used as it is configured (exit 4). */
export async function connectTo(url: string, settings: Settings, resources: AsyncDisposableStack): Promise<Client> {
  const { config } = settings;
  try {
    const client = await connectElasticsearch({
      url,
      requestTimeoutMs: config.ELASTIC_REQUEST_TIMEOUT_MS,
      ...(config.ELASTIC_API_KEY === undefined ? {} : { apiKey: config.ELASTIC_API_KEY }),
    });
    resources.defer(() => client.close());
    return client;
  } catch (error) {
    throw unusable(settings, error);
  }
}

/** Elasticsearch cannot be used, in one line without secrets. */
export function unusable({ config }: Settings, error: unknown): CommandError {
  const where =
    config.ELASTIC_URL === undefined ? "the embedded search engine" : `Elasticsearch at ${shown(config.ELASTIC_URL)}`;
  return new CommandError(
    "unreachable",
    `${where} cannot be used (${describeFailure(error)}); start it or correct ELASTIC_URL`,
    {
      cause: error,
    },
  );
}

type Attempt = "there" | "created" | { readonly refusal: CommandError; readonly mayPass: boolean };

async function tryIndex(client: Client, settings: Settings): Promise<Attempt> {
  try {
    const outcome = await ensureIndex(client, { alias: settings.index, environment: settings.environment });
    if (typeof outcome === "string") return outcome;
    return { refusal: new CommandError("refused", outcome.detail), mayPass: false };
  } catch (error) {
    return { refusal: unusable(settings, error), mayPass: mayComeBack(error) };
  }
}

/**
 * Makes sure that the search index is there, and says whether it had to be made. Returns why not when Elasticsearch is away for the moment; throws a CommandError when
 * only an operator can make it so.
 */
export async function prepareIndex(
  client: Client,
  settings: Settings,
): Promise<"there" | "created" | { readonly away: CommandError }> {
  const attempt = await tryIndex(client, settings);
  if (typeof attempt === "string") return attempt;
  if (attempt.mayPass) return { away: attempt.refusal };
  throw attempt.refusal;
}

const retryMs = 1000;

/**
 * Makes the index as soon as Elasticsearch is back, and says whether it had to be made. Until then the projection's requests are refused and tried again: they name an
 * alias. Never rejects: whatever stands there meanwhile, a load balancer's page or a cluster that does not know us yet, is told once and asked again. `away` is why it could
 * not be made at the start.
 */
export async function prepareIndexLater(
  client: Client,
  settings: Settings,
  away: CommandError,
  tell: (why: string) => void,
  stop: AbortSignal,
): Promise<"there" | "created" | "stopped"> {
  let told = away.message;
  tell(told);
  for (;;) {
    await pause(retryMs, stop);
    const attempt = stop.aborted ? "stopped" : await tryIndex(client, settings);
    if (typeof attempt === "string") return attempt;
    if (stop.aborted || attempt.refusal.message === told) continue;
    told = attempt.refusal.message;
    tell(told);
  }
}

/** Reports an index that had to be created although Postgres has documents: nothing written before gets into it by itself. `prepared` is how the index was found. */
export async function tellMissingDocuments(
  prepared: "there" | "created" | "stopped",
  store: Store,
  sinks: Sinks,
): Promise<void> {
  if (prepared !== "created") return;
  // Only a hint: a database that does not answer is reported elsewhere, and must not end the process.
  if (await hasDocuments(store.database.db).catch(() => false)) indexWithoutDocuments(sinks);
}

import { errors } from "@elastic/elasticsearch";
import { CommandError } from "../errors.ts";
import type { Progress } from "../projection/rebuild.ts";
import { type Checked, checkSearch } from "../projection/search/check.ts";
import { reachElasticsearch, unusable } from "./elasticsearch.ts";
import { type Env, readSettings } from "./settings.ts";
import { openPool, openStore, reporting } from "./store.ts";

export type CheckReport = Checked & { readonly index: string; readonly seconds: number };

/** Holds the search index against Postgres. Throws a CommandError when a server cannot be reached, there is no index, or `signal` fires. */
export async function check(
  env: Env,
  request: { readonly signal: AbortSignal; readonly onProgress: Progress },
): Promise<CheckReport> {
  await using resources = new AsyncDisposableStack();
  const settings = readSettings(env);
  const { index } = settings;
  const store = await openStore(settings, "required", "wordloom-check", resources);
  // A statement may go through a whole table.
  const { db } = openPool(store, "wordloom-check", resources, { max: 1, statementTimeoutMs: 3_600_000 });
  const client = await reachElasticsearch(settings, resources);
  return await reporting(store.address, async () => {
    const startedAt = performance.now();
    try {
      if (!(await client.indices.existsAlias({ name: index })))
        throw new CommandError(
          "failed",
          `there is no search index "${index}"; run \`wordloom rebuild\`, or correct ELASTIC_INDEX`,
        );
      const checked = await checkSearch(db, client, { index, ...request });
      return { index, seconds: (performance.now() - startedAt) / 1000, ...checked };
    } catch (error) {
      throw error instanceof errors.ElasticsearchClientError ? unusable(settings, error) : error;
    }
  });
}

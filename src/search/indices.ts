import type { estypes } from "@elastic/elasticsearch";
import { type Client, errors } from "@elastic/elasticsearch";

/** What a document holds. `strict`: a field that is not here is refused, so that no mapping is ever guessed. */
const properties: Record<string, estypes.MappingProperty> = {
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
};
const mappings: estypes.MappingTypeMapping = { dynamic: "strict", properties };

export const documentFields: readonly string[] = Object.keys(properties);

const settings: estypes.IndicesIndexSettings = {
  number_of_shards: 1,
  auto_expand_replicas: "0-1",
  // How long Elasticsearch remembers the version of a deleted document: a write that was delayed for less than this cannot bring it back.
  gc_deletes: "24h",
};

/** Why the alias cannot be used as it is. */
export type IndexProblem = { readonly kind: "not_an_alias"; readonly detail: string };

/**
 * Makes sure that `alias` points to an index with our mapping, creating `<alias>-000001` when there is none. Any number of processes may call it at once.
 * Returns "there", "created", or a problem that only an operator can solve. Throws the client's errors when the engine does not answer.
 */
export async function ensureIndex(client: Client, alias: string): Promise<"there" | "created" | IndexProblem> {
  // One look for both: between two, another process may make the alias, which would then be taken for an index.
  const behind = await client.indices.getAlias({ index: alias }, { ignore: [404], meta: true });
  if (behind.statusCode !== 404) {
    if (!(alias in behind.body)) return "there";
    return {
      kind: "not_an_alias",
      detail: `"${alias}" is an index, not an alias: give ELASTIC_INDEX another name, or delete that index`,
    };
  }
  try {
    await client.indices.create({
      index: `${alias}-000001`,
      mappings,
      settings,
      aliases: { [alias]: { is_write_index: true } },
    });
    return "created";
  } catch (error) {
    if (error instanceof errors.ResponseError && error.message.includes("resource_already_exists_exception")) {
      // Somebody else was quicker; or the index is there without its alias, which is put back.
      await client.indices.updateAliases({
        actions: [{ add: { index: `${alias}-000001`, alias, is_write_index: true } }],
      });
      return "there";
    }
    throw error;
  }
}

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

export const hoursDeletesAreRemembered = 24;

const settings: estypes.IndicesIndexSettings = {
  number_of_shards: 1,
  auto_expand_replicas: "0-1",
  // How long Elasticsearch remembers the version of a deleted document: a write that was delayed for less than this cannot bring it back. A node that is restarted forgets it
  // (seen on 9.2.2): then only a write that was under way before the delete, and arrives after the restart, can.
  gc_deletes: `${hoursDeletesAreRemembered}h`,
};

/** What an index says of whose it is, as environment_sentinel does for a database: those who share an Elasticsearch must not rebuild each other's. */
const markOf = (env: string) => ({ project: "wordloom", env });

/** The alias that is searched, and the environment that it belongs to. */
export type SearchIndex = { readonly alias: string; readonly environment: string };

const createIndex = (client: Client, environment: string, index: string, alias: string) =>
  client.indices.create({
    index,
    mappings: { ...mappings, _meta: markOf(environment) },
    settings,
    aliases: { [alias]: { is_write_index: true } },
  });

/** The names of the indices behind `name`, which may be a pattern; none where there are none. */
async function indicesBehind(client: Client, name: string): Promise<string[]> {
  const found = await client.indices.getAlias({ index: name }, { ignore: [404], meta: true });
  return found.statusCode === 404 ? [] : Object.keys(found.body);
}

/** Why the alias cannot be used as it is. */
export type IndexProblem = { readonly kind: "not_an_alias" | "of_another_environment"; readonly detail: string };

type Mappings = Awaited<ReturnType<Client["indices"]["getMapping"]>>;

/** The indices behind `name`, each with its mapping; none where there are none. */
async function mappingsBehind(client: Client, name: string): Promise<Mappings> {
  const found = await client.indices.getMapping({ index: name }, { ignore: [404], meta: true });
  return found.statusCode === 404 ? {} : found.body;
}

/**
 * Marks as ours the indices that do not say whose they are: they were made before indices did. Where that is not allowed it is left: who may not change a mapping may still read
 * and write. Returns a problem, and goes no further, at one that is another environment's.
 */
async function takeAsOurs(
  client: Client,
  { alias, environment }: SearchIndex,
  indices: Mappings,
): Promise<IndexProblem | undefined> {
  for (const [index, { mappings: found }] of Object.entries(indices)) {
    const { _meta: notes } = found;
    const env: unknown = notes?.["env"];
    if (env === environment) continue;
    if (typeof env === "string")
      return {
        kind: "of_another_environment",
        detail: `the index behind "${alias}" is of the environment ${env}, but WORDLOOM_ENV is ${environment}; set ELASTIC_INDEX to a name of its own`,
      };
    await client.indices.putMapping({ index, _meta: { ...notes, ...markOf(environment) } }, { ignore: [403] });
  }
  return undefined;
}

/**
 * Makes sure that the alias points to an index with our mapping that is of our environment, creating `<alias>-000001` when there is none. Any number of processes may call it at
 * once.
 * Returns "there", "created", or a problem that only an operator can solve. Throws the client's errors when the engine does not answer.
 */
export async function ensureIndex(client: Client, search: SearchIndex): Promise<"there" | "created" | IndexProblem> {
  const { alias, environment } = search;
  const first = `${alias}-000001`;
  // One look for all: between two, another process may make the alias, which would then be taken for an index.
  const behind = await mappingsBehind(client, alias);
  if (Object.hasOwn(behind, alias))
    return {
      kind: "not_an_alias",
      detail: `"${alias}" is an index, not an alias: give ELASTIC_INDEX another name, or delete that index`,
    };
  if (Object.keys(behind).length > 0) return (await takeAsOurs(client, search, behind)) ?? "there";
  try {
    await createIndex(client, environment, first, alias);
    return "created";
  } catch (error) {
    if (error instanceof errors.ResponseError && error.message.includes("resource_already_exists_exception")) {
      // Another process was quicker; or the index exists without its alias, which is put back.
      const problem = await takeAsOurs(client, search, await mappingsBehind(client, first));
      if (problem) return problem;
      await client.indices.updateAliases({ actions: [{ add: { index: first, alias, is_write_index: true } }] });
      return "there";
    }
    throw error;
  }
}

/** An index that is being filled, to take the place of the one behind `alias`. */
export type NextIndex = {
  readonly index: string;
  /** The alias under which it is written to meanwhile. */
  readonly building: string;
};

/** Behind this alias are an index that is being filled, and one whose place was taken: neither is searched, both may go. */
const asideAlias = (alias: string) => `${alias}-rebuild`;
/** Behind this one is what goes: no take-over can have it any more. */
const droppedAlias = (alias: string) => `${alias}-dropped`;

/** The number in the name of an index that we have made for `alias`; null for others. */
function numberOf(alias: string, index: string): number | null {
  const digits = index.startsWith(`${alias}-`) ? index.slice(alias.length + 1) : "";
  return /^\d{6,9}$/.test(digits) ? Number(digits) : null;
}

/** Creates the next, empty index after those of `alias`. Remains of an interrupted rebuild are removed first: only one rebuild may call this at a time. */
export async function openNextIndex(client: Client, { alias, environment }: SearchIndex): Promise<NextIndex> {
  await dropAside(client, alias);
  const numbers = (await indicesBehind(client, `${alias}-*`)).map((index) => numberOf(alias, index) ?? 0);
  const index = `${alias}-${String(Math.max(0, ...numbers) + 1).padStart(6, "0")}`;
  const building = asideAlias(alias);
  await createIndex(client, environment, index, building);
  return { index, building };
}

/**
 * Puts the next index in the place of what is behind `alias`, in one step: whoever asks sees the one or the other. Indices of ours that were there are set aside, and not
 * dropped yet: a search may be at work on them.
 */
export async function takeOver(client: Client, alias: string, { index, building }: NextIndex): Promise<void> {
  // What was written last can be found at once, and not in a second.
  await client.indices.refresh({ index });
  const before = await indicesBehind(client, alias);
  const ours = before.filter((old) => numberOf(alias, old) !== null);
  const actions = [
    ...before.map((old) => ({ remove: { index: old, alias } })),
    // The fence of the take-over: whoever has dropped the index meanwhile has taken it out of this alias first.
    { remove: { index, alias: building, must_exist: true } },
    ...ours.map((old) => ({ add: { index: old, alias: asideAlias(alias) } })),
    { add: { index, alias, is_write_index: true } },
  ];
  await client.indices.updateAliases({ actions }).catch(async (error: unknown) => {
    // The answer that was lost may have been a yes.
    if (!(await indicesBehind(client, alias)).includes(index)) throw error;
  });
}

/**
 * Drops what is set aside. A take-over whose answer did not come may still be waiting in the line of a busy master, and a delete would come behind it: so each index first leaves
 * the alias that the take-over needs. Whichever of the two comes first, the other is refused.
 */
export async function dropAside(client: Client, alias: string): Promise<void> {
  const [aside, dropped] = [asideAlias(alias), droppedAlias(alias)];
  for (const index of await indicesBehind(client, aside))
    await client.indices.updateAliases({
      actions: [{ remove: { index, alias: aside, must_exist: true } }, { add: { index, alias: dropped } }],
    });
  for (const index of await indicesBehind(client, dropped)) await client.indices.delete({ index });
}

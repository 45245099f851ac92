import { type Client, errors, type estypes } from "@elastic/elasticsearch";
import { WordloomError } from "../errors.ts";
import { describeFailure } from "./client.ts";

export type SearchRequest = {
  readonly q: string;
  readonly entityType?: string;
  readonly libraryId?: string;
  readonly bookId?: string;
  readonly limit: number;
  readonly offset: number;
};

/** One document that matches, best first. Highlights are HTML-escaped, with the matches in <em>. */
export type SearchHit = {
  readonly entityType: string;
  readonly entityId: string;
  /** Of the document. Versions count the writes of one entity, so a JS number holds them. */
  readonly version: number;
  readonly score: number;
  readonly title: string | null;
  readonly text: string | null;
};

export type SearchPage = { readonly total: number; readonly hits: readonly SearchHit[] };

/** Elasticsearch looks no deeper (index.max_result_window). */
export const deepestHit = 10_000;

const fragmentCharacters = 200;
/** Elasticsearch refuses the whole search when one hit's text is longer than this and no limit is named (index.highlight.max_analyzed_offset). */
const highlightedCharacters = 1_000_000;

type Document = { entity_type?: unknown; entity_id?: unknown };

function filters({ entityType, libraryId, bookId }: SearchRequest): estypes.QueryDslQueryContainer[] {
  const terms = { entity_type: entityType, library_id: libraryId, book_id: bookId };
  return Object.entries(terms).flatMap(([field, value]) => (value === undefined ? [] : [{ term: { [field]: value } }]));
}

/**
 * The page of documents in which one field holds every word of `q`. Throws SEARCH_UNAVAILABLE when the engine does not answer, is overloaded, or has
 * no index yet.
 */
export async function search(client: Client, index: string, request: SearchRequest): Promise<SearchPage> {
  try {
    const { hits } = await client.search<Document>({
      index,
      query: {
        bool: {
          must: [
            { multi_match: { query: request.q, type: "best_fields", operator: "and", fields: ["title^3", "text"] } },
          ],
          filter: filters(request),
        },
      },
      from: request.offset,
      size: request.limit,
      track_total_hits: true,
      version: true,
      _source: ["entity_type", "entity_id"],
      // Equal scores keep one order from page to page.
      sort: [{ _score: { order: "desc" } }, { entity_id: { order: "asc" } }],
      highlight: {
        encoder: "html",
        pre_tags: ["<em>"],
        post_tags: ["</em>"],
        max_analyzed_offset: highlightedCharacters,
        fields: {
          title: { number_of_fragments: 0 },
          text: { number_of_fragments: 1, fragment_size: fragmentCharacters },
        },
      },
    });
    // A page with the status 200, from whatever stands before the engine.
    if (!Array.isArray(hits?.hits)) throw new WordloomError("SEARCH_UNAVAILABLE");
    return {
      total: typeof hits.total === "number" ? hits.total : (hits.total?.value ?? 0),
      hits: hits.hits.flatMap(({ _source: source, _version: version, _score: score, highlight }) =>
        typeof source?.entity_type === "string" && typeof source.entity_id === "string" && version !== undefined
          ? {
              entityType: source.entity_type,
              entityId: source.entity_id,
              version,
              score: score ?? 0,
              title: highlight?.["title"]?.[0] ?? null,
              text: highlight?.["text"]?.[0] ?? null,
            }
          : [],
      ),
    };
  } catch (error) {
    if (isOutage(error)) throw new WordloomError("SEARCH_UNAVAILABLE", undefined, { cause: error });
    // The engine's own words quote the query.
    throw error instanceof errors.ResponseError
      ? new Error(`Elasticsearch refuses the search: ${describeFailure(error)}`)
      : error;
  }
}

/** 404: the index is not there (yet). A 400 is our own mistake, and no outage. */
function isOutage(error: unknown): boolean {
  if (error instanceof errors.ResponseError) return error.statusCode !== 400;
  return error instanceof errors.ElasticsearchClientError;
}

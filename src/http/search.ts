import type { Client } from "@elastic/elasticsearch";
import type { Static } from "@sinclair/typebox";
import type { Elysia } from "elysia";
import { WordloomError } from "../errors.ts";
import { type EntityType, entityTypes } from "../events.ts";
import { current } from "../library/search.ts";
import { deepestHit, type SearchRequest, search } from "../search/query.ts";
import type { Desk } from "./desk.ts";
import { everyQuery, fields, oneOf, optional, prose, uuid, wholeNumber } from "./schema.ts";

/** Where searches go. */
export type SearchBackend = { readonly client: Client; readonly index: string };

const page = {
  q: prose(500, 1),
  limit: optional(wholeNumber(1, 100)),
  offset: optional(wholeNumber(0, deepestHit - 1)),
  ...everyQuery,
};
const inLibrary = { library_id: optional(uuid()) };
const inBook = { ...inLibrary, book_id: optional(uuid()) };
const everything = fields({ ...page, ...inBook, entity_type: optional(oneOf(entityTypes)) });
const blocks = fields({ ...page, ...inBook });
const books = fields({ ...page, ...inLibrary });
const tags = fields(page);

/** The same escapes as Elasticsearch's html encoder, so that a snippet can be shown in one way wherever it comes from. */
const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#x27;",
  "/": "&#x2F;",
};
const escaped = (text: string) => text.replace(/[&<>"'/]/g, (c) => escapes[c] ?? c);

function requestOf(query: Static<typeof everything>, entityType: EntityType | undefined): SearchRequest {
  const limit = Number(query.limit ?? 20);
  const offset = Number(query.offset ?? 0);
  if (offset + limit > deepestHit)
    throw new WordloomError("VALIDATION_ERROR", `offset + limit must not exceed ${deepestHit}`);
  return {
    q: query.q,
    limit,
    offset,
    ...(entityType === undefined ? {} : { entityType }),
    ...(query.library_id === undefined ? {} : { libraryId: query.library_id.toLowerCase() }),
    ...(query.book_id === undefined ? {} : { bookId: query.book_id.toLowerCase() }),
  };
}

async function found(desk: Desk, { client, index }: SearchBackend, request: SearchRequest) {
  const { limit, offset } = request;
  if (!desk.config.ENABLE_SEARCH_PROJECTION) return { total: 0, hits: [], limit, offset };
  const { total, hits } = await desk.signals.searched(index, () => search(client, index, request));
  const { served, ahead } = await current(desk.db, hits);
  if (ahead > 0) desk.signals.indexAhead(ahead);
  return {
    total: total - (hits.length - served.length),
    hits: served.map(({ candidate, ...entity }) => ({
      entity_type: entity.entityType,
      entity_id: entity.entityId,
      title: entity.title,
      snippet: candidate.text ?? candidate.title ?? escaped(entity.snippet),
      score: candidate.score,
      path: entity.path,
      library_id: entity.libraryId,
      book_id: entity.bookId,
      rank_algorithm: "bm25",
    })),
    limit,
    offset,
  };
}

export function searchRoutes(app: Elysia, desk: Desk, backend: SearchBackend): void {
  const answer = (query: Static<typeof everything>, entityType?: EntityType) =>
    found(desk, backend, requestOf(query, entityType));
  app
    .get("/api/v1/search", ({ query }) => answer(query, query.entity_type), {
      query: everything,
      detail: { summary: "Finds entities of every kind, best match first." },
    })
    .get("/api/v1/search/blocks", ({ query }) => answer(query, "block"), {
      query: blocks,
      detail: { summary: "Finds blocks." },
    })
    .get("/api/v1/search/books", ({ query }) => answer(query, "book"), {
      query: books,
      detail: { summary: "Finds books by title and summary." },
    })
    .get("/api/v1/search/tags", ({ query }) => answer(query, "tag"), {
      query: tags,
      detail: { summary: "Finds tags by name and description." },
    });
}

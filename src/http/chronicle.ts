import type { Elysia } from "elysia";
import { type EventType, eventTypes } from "../events.ts";
import { type ChronicleEntry, listBookEntries } from "../library/chronicle.ts";
import type { Desk } from "./desk.ts";
import { answerPage, idParams, pageFields, pageOf } from "./entity.ts";
import { fields, oneOf, optional } from "./schema.ts";

const ofBooks = (Object.keys(eventTypes) as EventType[]).filter((type) => ["book", "block"].includes(eventTypes[type]));
const listing = fields({ event_type: optional(oneOf(ofBooks)), ...pageFields });

const shown = (entry: ChronicleEntry) => ({
  id: entry.id,
  event_type: entry.eventType,
  entity_type: entry.entityType,
  entity_id: entry.entityId,
  book_id: entry.bookId,
  block_id: entry.blockId,
  actor_id: entry.actorId,
  payload: entry.payload,
  summary: entry.summary,
  source: entry.source,
  correlation_id: entry.correlationId,
  occurred_at: entry.occurredAt,
  created_at: entry.createdAt,
});

export function chronicleRoutes(app: Elysia, desk: Desk): void {
  app.get(
    "/api/v1/chronicle/books/:id/events",
    async ({ params, query }) => {
      const page = pageOf(query);
      return answerPage(await listBookEntries(desk.db, params.id, query.event_type, page), page, shown);
    },
    {
      params: idParams,
      query: listing,
      detail: { summary: "Lists what happened to a book and its blocks, newest first; works for deleted books too." },
    },
  );
}

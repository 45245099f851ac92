import {
  bigint,
  boolean,
  doublePrecision,
  integer,
  jsonb,
  numeric,
  pgTable,
  primaryKey,
  text,
  timestamp,
  uuid,
  varchar,
} from "drizzle-orm/pg-core";
import { entityTypes } from "../events.ts";

/** The tables as the query builder sees them. The SQL in `drizzle/` makes them; a test holds the two together. */

const at = (name: string) => timestamp(name, { withTimezone: true, mode: "date" });
const version = () => bigint("version", { mode: "bigint" }).notNull().default(1n);
const created = () => ({
  createdAt: at("created_at").notNull().defaultNow(),
  updatedAt: at("updated_at").notNull().defaultNow(),
});

export const libraries = pgTable("libraries", {
  id: uuid("id").primaryKey(),
  userId: uuid("user_id").notNull(),
  basementBookshelfId: uuid("basement_bookshelf_id"),
  name: varchar("name", { length: 255 }).notNull(),
  description: varchar("description", { length: 500 }),
  coverMediaId: uuid("cover_media_id"),
  themeColor: varchar("theme_color", { length: 16 }),
  pinned: boolean("pinned").notNull().default(false),
  pinnedOrder: integer("pinned_order"),
  archivedAt: at("archived_at"),
  lastActivityAt: at("last_activity_at").notNull().defaultNow(),
  viewsCount: bigint("views_count", { mode: "number" }).notNull().default(0),
  lastViewedAt: at("last_viewed_at"),
  version: version(),
  ...created(),
  softDeletedAt: at("soft_deleted_at"),
});

export const bookshelves = pgTable("bookshelves", {
  id: uuid("id").primaryKey(),
  libraryId: uuid("library_id").notNull(),
  name: varchar("name", { length: 255 }).notNull(),
  description: varchar("description", { length: 1000 }),
  isBasement: boolean("is_basement").notNull().default(false),
  isPinned: boolean("is_pinned").notNull().default(false),
  pinnedAt: at("pinned_at"),
  isFavorite: boolean("is_favorite").notNull().default(false),
  status: varchar("status", { length: 50, enum: ["active", "archived", "deleted"] })
    .notNull()
    .default("active"),
  version: version(),
  ...created(),
  softDeletedAt: at("soft_deleted_at"),
});

export const books = pgTable("books", {
  id: uuid("id").primaryKey(),
  bookshelfId: uuid("bookshelf_id").notNull(),
  libraryId: uuid("library_id").notNull(),
  title: varchar("title", { length: 255 }).notNull(),
  summary: text("summary"),
  coverIcon: varchar("cover_icon", { length: 64 }),
  coverMediaId: uuid("cover_media_id"),
  isPinned: boolean("is_pinned").notNull().default(false),
  dueAt: at("due_at"),
  status: varchar("status", { length: 50, enum: ["draft", "published", "archived", "deleted"] })
    .notNull()
    .default("draft"),
  maturity: varchar("maturity", { length: 16, enum: ["seed", "growing", "stable", "legacy"] })
    .notNull()
    .default("seed"),
  maturityScore: integer("maturity_score").notNull().default(0),
  legacyFlag: boolean("legacy_flag").notNull().default(false),
  manualMaturityOverride: boolean("manual_maturity_override").notNull().default(false),
  manualMaturityReason: text("manual_maturity_reason"),
  lastVisitedAt: at("last_visited_at"),
  visitCount90d: integer("visit_count_90d").notNull().default(0),
  previousBookshelfId: uuid("previous_bookshelf_id"),
  movedToBasementAt: at("moved_to_basement_at"),
  sourcePath: text("source_path"),
  version: version(),
  ...created(),
  softDeletedAt: at("soft_deleted_at"),
});

export const blockTypes = [
  "text",
  "heading",
  "code",
  "image",
  "quote",
  "list",
  "todo_list",
  "table",
  "divider",
] as const;

export const blocks = pgTable("blocks", {
  id: uuid("id").primaryKey(),
  bookId: uuid("book_id").notNull(),
  type: varchar("type", { length: 32, enum: blockTypes }).notNull(),
  content: text("content").notNull(),
  order: numeric("order", { precision: 36, scale: 18 }).notNull(),
  headingLevel: integer("heading_level"),
  meta: text("meta"),
  version: version(),
  ...created(),
  softDeletedAt: at("soft_deleted_at"),
});

export const tags = pgTable("tags", {
  id: uuid("id").primaryKey(),
  userId: uuid("user_id").notNull(),
  name: varchar("name", { length: 50 }).notNull(),
  color: varchar("color", { length: 9 }).notNull().default("#6366F1"),
  iconEmoji: varchar("icon_emoji", { length: 50 }),
  description: varchar("description", { length: 500 }),
  parentTagId: uuid("parent_tag_id"),
  level: integer("level").notNull().default(0),
  usageCount: integer("usage_count").notNull().default(0),
  version: version(),
  ...created(),
  softDeletedAt: at("deleted_at"),
});

export const searchIndex = pgTable("search_index", {
  id: uuid("id").primaryKey().defaultRandom(),
  entityType: varchar("entity_type", { length: 50, enum: entityTypes }).notNull(),
  entityId: uuid("entity_id").notNull(),
  libraryId: uuid("library_id"),
  bookId: uuid("book_id"),
  title: varchar("title", { length: 255 }).notNull().default(""),
  text: text("text").notNull(),
  snippet: text("snippet"),
  rankScore: doublePrecision("rank_score").notNull().default(0),
  eventVersion: bigint("event_version", { mode: "bigint" }).notNull(),
  ...created(),
  deletedAt: at("deleted_at"),
});

/** What an event of the chronicle says: its entry says the same. */
const chronicled = () => ({
  id: uuid("id").primaryKey(),
  eventType: varchar("event_type", { length: 64 }).notNull(),
  entityType: varchar("entity_type", { length: 50, enum: entityTypes }).notNull(),
  entityId: uuid("entity_id").notNull(),
  libraryId: uuid("library_id"),
  bookId: uuid("book_id"),
  blockId: uuid("block_id"),
  actorId: uuid("actor_id"),
  payload: jsonb("payload").notNull().default({}),
  correlationId: varchar("correlation_id", { length: 128 }),
});

export const chronicleEvents = pgTable("chronicle_events", {
  ...chronicled(),
  occurredAt: at("occurred_at").notNull().defaultNow(),
  createdAt: at("created_at").notNull().defaultNow(),
  schemaVersion: integer("schema_version").notNull().default(1),
  provenance: varchar("provenance", { length: 32 }).notNull().default("live"),
  source: varchar("source", { length: 64 }).notNull().default("unknown"),
  actorKind: varchar("actor_kind", { length: 32 }).notNull().default("unknown"),
});

export const chronicleEntries = pgTable("chronicle_entries", {
  ...chronicled(),
  occurredAt: at("occurred_at").notNull(),
  createdAt: at("created_at").notNull(),
  schemaVersion: integer("schema_version").notNull(),
  provenance: varchar("provenance", { length: 32 }).notNull(),
  source: varchar("source", { length: 64 }).notNull(),
  actorKind: varchar("actor_kind", { length: 32 }).notNull(),
  summary: text("summary").notNull(),
  projectionVersion: integer("projection_version").notNull(),
  updatedAt: at("updated_at").notNull().defaultNow(),
});

export const chronicleEventDedupeState = pgTable(
  "chronicle_event_dedupe_state",
  {
    eventType: varchar("event_type", { length: 64 }).notNull(),
    bookId: uuid("book_id").notNull(),
    blockId: uuid("block_id").notNull(),
    actorId: uuid("actor_id").notNull(),
    windowSeconds: integer("window_seconds").notNull(),
    lastBucket: bigint("last_bucket", { mode: "bigint" }).notNull(),
    updatedAt: at("updated_at").notNull().defaultNow(),
  },
  (t) => [primaryKey({ columns: [t.eventType, t.bookId, t.blockId, t.actorId, t.windowSeconds] })],
);

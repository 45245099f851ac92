import type { EntityType } from "../db/schema.ts";

/** Every kind of event that the library writes, and of what. */
export const eventTypes = {
  library_created: "library",
  library_updated: "library",
  library_renamed: "library",
  library_deleted: "library",
  bookshelf_created: "bookshelf",
  bookshelf_updated: "bookshelf",
  bookshelf_renamed: "bookshelf",
  bookshelf_deleted: "bookshelf",
  book_created: "book",
  book_updated: "book",
  book_renamed: "book",
  book_deleted: "book",
  block_created: "block",
  block_updated: "block",
  block_type_changed: "block",
  block_soft_deleted: "block",
  tag_created: "tag",
  tag_updated: "tag",
  tag_renamed: "tag",
  tag_moved: "tag",
  tag_deleted: "tag",
} as const satisfies Record<string, EntityType>;

export type EventType = keyof typeof eventTypes;

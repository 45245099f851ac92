/** The name of the set of keys that spans and log lines have, spelled as in the operator documents: a test compares the two. */
export const obsSchema = "labs-009-v2";

export const services = {
  api: "wordloom-api",
  search: "wordloom-search-outbox-worker",
  chronicle: "wordloom-chronicle-outbox-worker",
} as const;

/** Who makes the spans of each, as OpenTelemetry's instrumentation scope. */
export const scopes = {
  api: "wordloom.api",
  search: "wordloom.search_outbox_worker",
  chronicle: "wordloom.chronicle_outbox_worker",
} as const satisfies Record<keyof typeof services, string>;

export type ServiceName = keyof typeof services;

/** What an experiment says on spans begins with its name. */
export const experiments = {
  es429: "wordloom.labs.es_429",
  bulkPartial: "wordloom.labs.es_bulk_partial",
} as const;

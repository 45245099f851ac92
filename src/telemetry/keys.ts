/**
 * The keys that metrics, spans and log lines share, spelled as in the operator documents. Whoever adds, removes or renames one of `attributes`
 * or `logFields` bumps `obsSchema`: a test compares the two.
 */
export const obsSchema = "labs-009-v2";

export const services = {
  api: "wordloom-api",
  search: "wordloom-search-outbox-worker",
  chronicle: "wordloom-chronicle-outbox-worker",
} as const;

export type ServiceName = keyof typeof services;

/** The projections, as metric labels and log fields name them. */
export const projections = { search: "search_index_to_elastic", chronicle: "chronicle_events_to_entries" } as const;

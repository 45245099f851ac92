/** The default folder for evidence, relative to the working folder: where the operator documents keep it. */
export const defaultOutdir = "docs/labs/_snapshot/auto/S3A-2A-3A";

/** The default folder for traces that belong to no run. */
export const defaultExports = "docs/labs/_snapshot/manual/_lab-S3A-2A-3A-expB";

/** The classic failures, in the order of the operator documents (Lab-S3A/2A/3A): the name and letter used there (null if none), and what breaks. */
export const menu = [
  { name: "es_down_connect", letter: "A", brief: "Elasticsearch is down: events wait, and land once it is back" },
  {
    name: "es_429_inject",
    letter: "B",
    brief: "Elasticsearch answers 429 (injected): events are retried, none fails",
  },
  {
    name: "es_write_block_4xx",
    letter: "C",
    brief:
      "The index refuses writes (index.blocks.write): events fail for good, and are replayed once the block is lifted",
  },
  {
    name: "es_bulk_partial",
    letter: "D",
    brief: "One item of a bulk request is refused (injected): it fails alone, the others land",
  },
  {
    name: "db_claim_contention",
    letter: "E",
    brief: "Two workers with a broken claim take the same events (injected): the fence keeps the result right",
  },
  {
    name: "stuck_reclaim",
    letter: "F",
    brief: "A worker is killed with events in hand: their lease runs out, another worker takes over",
  },
  {
    name: "duplicate_delivery",
    letter: "G",
    brief: "The same delete is delivered several times: it takes effect once, the repeats are counted",
  },
  {
    name: "projection_version",
    letter: "H",
    brief: "The same event goes through two versions of the chronicle's projection: row, span and log show which",
  },
  {
    name: "collector_down",
    letter: null,
    brief: "The trace store goes away and comes back: work goes on, and what is lost is counted",
  },
] as const;

export type DrillName = (typeof menu)[number]["name"];

export const drillNames: readonly DrillName[] = menu.map(({ name }) => name);

import { type Name, sql } from "drizzle-orm";
import { projections } from "../events.ts";

/**
 * The queues of the projections. Names are those of the operator documents. An event says which entity changed and to which version, never what it is now.
 *
 *            claim                 settle: done
 *   pending ───────▶ processing ─────────────────▶ done ──▶ pruned
 *      ▲  ▲             │  │ │
 *      │  └─ release ───┘  │ └── settle: fail ───▶ failed ──┐
 *      ├──── settle: retry ┘                                │
 *      ├──── reclaim (the lease ran out)                    │
 *      └──── replay (an operator, audited) ◀────────────────┘
 */
export const queues = {
  search: { projection: projections.search, short: "search", table: "search_outbox_events" },
  chronicle: { projection: projections.chronicle, short: "chronicle", table: "chronicle_outbox_events" },
} as const;
export type Queue = (typeof queues)[keyof typeof queues];

/** The partition of what is not done: pending, processing and failed. */
export const live = ({ table }: Queue): Name => sql.identifier(`${table}_live`);

/** The partition of what is done, until it is pruned. */
export const history = ({ table }: Queue): Name => sql.identifier(`${table}_done`);

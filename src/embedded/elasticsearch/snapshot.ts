import { Database } from "bun:sqlite";
import { Refusal } from "./errors.ts";
import type { Index, Store } from "./store.ts";

/** What a search reads: the index as it is now, or as it was when its point in time was opened. */
export interface Snapshot {
  readonly db: Database;
  readonly index: Index;
  readonly words: Index["words"];
}

/** Points in time that are open, each a connection of its own that holds a read transaction: WAL keeps its pages. */
export interface PointsInTime {
  open(index: Index, keepAliveMs: number): string;
  /** The snapshot behind an id, kept alive for longer. Throws when there is none (any more). */
  get(id: string, keepAliveMs: number | undefined): Snapshot;
  close(ids: readonly string[]): number;
}

interface Point extends Snapshot {
  expiresAt: number;
}

export function pointsInTime(store: Store): PointsInTime {
  const open = new Map<string, Point>();
  const drop = (id: string) => {
    const point = open.get(id);
    open.delete(id);
    point?.db.close();
    return point !== undefined;
  };
  const dropExpired = () => {
    for (const [id, { expiresAt }] of open) if (expiresAt < Date.now()) drop(id);
  };
  return {
    open(index, keepAliveMs) {
      dropExpired();
      const db = new Database(store.path, { readonly: true, safeIntegers: true, strict: true });
      db.run("begin");
      // The transaction begins with its first read.
      db.query("select 1 from indices").get();
      const id = Buffer.from(JSON.stringify([crypto.randomUUID(), index.name])).toString("base64url");
      open.set(id, {
        db,
        index: { ...index, statements: undefined },
        words: new Map(index.words),
        expiresAt: Date.now() + keepAliveMs,
      });
      return id;
    },
    get(id, keepAliveMs) {
      dropExpired();
      const point = open.get(id);
      if (point === undefined || !store.indices.has(point.index.name)) throw contextMissing(id);
      if (keepAliveMs !== undefined) point.expiresAt = Math.max(point.expiresAt, Date.now() + keepAliveMs);
      return point;
    },
    close: (ids) => ids.filter(drop).length,
  };
}

/** Throws for what is no id of a point in time at all. */
export function checkPointId(id: string): void {
  try {
    const [uuid, index]: unknown[] = JSON.parse(Buffer.from(id, "base64url").toString());
    if (typeof uuid === "string" && typeof index === "string") return;
  } catch {
    // falls through: any text that does not decode is refused alike
  }
  throw new Refusal(400, "illegal_argument_exception", `[${id}] is not the id of a point in time`);
}

function contextMissing(id: string): Refusal {
  const cause = { type: "search_context_missing_exception", reason: `No search context found for id [${id}]` };
  return new Refusal(404, "search_phase_execution_exception", "all shards failed", {
    root_cause: [cause],
    phase: "query",
    grouped: true,
    failed_shards: [{ shard: 0, index: null, reason: cause }],
  });
}

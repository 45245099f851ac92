import { expect } from "bun:test";
import { sql } from "drizzle-orm";
import type { Db } from "../../src/db/client.ts";
import type { Lease, Op, Outcome } from "../../src/events.ts";
import { type Claim, openClaim } from "../../src/outbox/claim.ts";
import { queues } from "../../src/outbox/queue.ts";
import { astray, enqueue, type QueueRow, rowsOf } from "../support/queue.ts";

export const queue = queues.search;
export const maxReclaims = 3;

/** What the model holds of one row. `claims` minus `refunds` is what the row must call attempts. */
type ModelRow = {
  readonly entity: string;
  status: QueueRow["status"];
  batch: string | null;
  leaseHolds: boolean;
  claims: number;
  refunds: number;
  counted: number;
  reclaims: number;
  replays: number;
};

/** A target that behaves as Elasticsearch does with external versions: the highest stays, a delete leaves its version behind. */
class Target {
  readonly documents = new Map<string, { version: bigint; deleted: boolean }>();
  write(entity: string, version: bigint, op: Op): "applied" | "superseded" {
    const stored = this.documents.get(entity);
    if (stored !== undefined && stored.version >= version) return "superseded";
    this.documents.set(entity, { version, deleted: op === "delete" });
    return "applied";
  }
}

type Entity = { version: bigint; deleted: boolean };

/** How the target answers: everything well, nothing reached, all applied and no answer, all refused, or by item. */
export type Weather = "well" | "down" | "lost" | "bad" | "mixed";

/** The real queue and what must be true of it. */
export class World {
  readonly rows = new Map<bigint, ModelRow>();
  readonly entities = new Map<string, Entity>();
  readonly target = new Target();
  readonly workers: Worker[];
  readonly batches = new Set<string>();
  /** The version of each document when it was last looked at. */
  readonly reached = new Map<string, bigint>();
  /** Sends that came after a newer version had been sent. */
  overtaken = 0;
  audited = 0;
  inserted = 0;
  pruned = 0;
  /** Rows compared with the model so far. */
  compared = 0;
  readonly db: Db;
  constructor(db: Db, workers: number) {
    this.db = db;
    this.workers = Array.from({ length: workers }, (_, i) => new Worker(this, `w${i}`));
  }

  /** One write: the entity's next version and `copies` events about it, in one transaction that may be rolled back. */
  async write(entity: string, op: Op, commit: boolean): Promise<void> {
    const version = (this.entities.get(entity)?.version ?? 0n) + 1n;
    const work = this.db.transaction(async (tx) => {
      await enqueue(tx, queue, [{ entityType: "tag", entityId: entity, op, eventVersion: version }]);
      if (!commit) tx.rollback();
    });
    if (!commit) {
      await work.catch(() => undefined);
      return;
    }
    await work;
    this.entities.set(entity, { version, deleted: op === "delete" });
    this.inserted += 1;
  }

  /** Compares every row with the model: I2, I5 to I9 of the invariants. New rows must be what was written and committed. */
  async check(): Promise<void> {
    const real = await rowsOf(this.db, queue);
    for (const [id, row] of real)
      if (!this.rows.has(id)) {
        expect(row.status).toBe("pending");
        this.rows.set(id, {
          entity: row.entity_id,
          status: "pending",
          batch: null,
          leaseHolds: false,
          claims: 0,
          refunds: 0,
          counted: 0,
          reclaims: 0,
          replays: 0,
        });
      }
    const said = Array.from(real, ([id, r]) => [
      id,
      r.status,
      r.status === "done" ? null : r.claim_batch_id,
      r.leased,
      r.attempts,
      r.counted_attempts,
      r.reclaim_count,
      r.replay_count,
    ]);
    const due = Array.from(this.rows, ([id, r]) => [
      id,
      r.status,
      r.status === "done" ? null : r.batch,
      r.leaseHolds,
      r.claims - r.refunds,
      r.counted,
      r.reclaims,
      r.replays,
    ]);
    expect(said).toEqual(due);
    expect(await astray(this.db, queue)).toEqual({ lost: [], due: [] });
    this.compared += real.size;
    expect(real.size).toBe(this.inserted - this.pruned);
    const [audit] = await this.db.execute<{ n: number }>(sql`select count(*)::int as n from outbox_replays`);
    expect(audit?.n).toBe(this.audited);
    // I3: never lower than it was, never ahead of the source.
    for (const [entity, { version }] of this.target.documents) {
      expect(version).toBeGreaterThanOrEqual(this.reached.get(entity) ?? 0n);
      expect(version).toBeLessThanOrEqual(this.entities.get(entity)?.version ?? 0n);
      this.reached.set(entity, version);
    }
  }

  due(): number {
    return Array.from(this.rows.values()).filter((r) => r.status === "pending").length;
  }
}

/** A worker with at most one batch in hand, and the memory of the batch before: a zombie may wake up with it. */
export class Worker {
  readonly claim: Claim;
  lease: Lease | null = null;
  former: Lease | null = null;
  /** What it decided for its batch; null before the send. */
  outcomes: Map<bigint, Outcome> | null = null;
  prepared: Map<string, Entity> | null = null;
  readonly world: World;
  constructor(world: World, name: string) {
    this.world = world;
    this.claim = openClaim(world.db, queue, { owner: name, leaseMs: 600_000 });
  }

  /** A claim hands out due rows only, all there are up to the limit, each to nobody else, in the order of their ids. */
  took(lease: Lease | null): void {
    if (lease === null) return;
    const { rows, batches } = this.world;
    expect(batches.has(lease.claimBatchId)).toBe(false);
    batches.add(lease.claimBatchId);
    const ids = lease.events.map((e) => e.id);
    expect(ids).toEqual(ids.toSorted((a, b) => (a < b ? -1 : 1)));
    for (const event of lease.events) {
      const row = rows.get(event.id);
      expect([event.id, row?.status]).toEqual([event.id, "pending"]);
      if (row === undefined) continue;
      Object.assign(row, { status: "processing", batch: lease.claimBatchId, leaseHolds: true, claims: row.claims + 1 });
      expect(event.attempts).toBe(row.claims - row.refunds);
      expect(event.countedAttempts).toBe(row.counted);
    }
    this.lease = lease;
    this.outcomes = null;
    this.prepared = null;
  }

  /** Reads what its entities are now. What it sends later may be old by then. */
  prepare(): void {
    this.prepared = new Map(
      (this.lease?.events ?? []).map((e) => [
        e.entityId,
        { ...(this.world.entities.get(e.entityId) ?? { version: e.eventVersion, deleted: true }) },
      ]),
    );
  }

  /** Sends the batch as a projection does: one item for each entity, as it was read; the rest is superseded. */
  send(weather: Weather, dice: number): void {
    const { lease, world } = this;
    if (lease === null) return;
    if (this.prepared === null) this.prepare();
    const newest = new Map(lease.events.map((e) => [e.entityId, e.id]));
    this.outcomes = new Map();
    for (const [i, event] of lease.events.entries()) {
      if (newest.get(event.entityId) !== event.id) {
        this.outcomes.set(event.id, { kind: "done", result: "superseded", sent: false });
        continue;
      }
      const now = this.prepared?.get(event.entityId);
      if (now === undefined) throw new Error("not prepared");
      const face = weather === "mixed" ? (["well", "busy", "bad", "lost", "odd"] as const)[(dice + i) % 5] : weather;
      const again = (reason: "es_429" | "es_timeout" | "es_connect" | "es_unknown", counted: boolean): Outcome => ({
        kind: "retry",
        reason,
        error: reason,
        delayMs: 0,
        counted,
        sent: true,
      });
      if (face === "down") this.outcomes.set(event.id, again("es_connect", false));
      else if (face === "busy") this.outcomes.set(event.id, again("es_429", false));
      else if (face === "odd") this.outcomes.set(event.id, again("es_unknown", true));
      else if (face === "bad")
        this.outcomes.set(event.id, { kind: "fail", reason: "es_4xx", error: "bad", sent: true });
      else {
        if ((world.target.documents.get(event.entityId)?.version ?? 0n) > now.version) world.overtaken += 1;
        const result = world.target.write(event.entityId, now.version, now.deleted ? "delete" : "upsert");
        // A lost answer: applied, and nobody knows.
        this.outcomes.set(
          event.id,
          face === "lost" ? again("es_timeout", false) : { kind: "done", result, sent: true },
        );
      }
    }
  }

  /** What a settle must have done: every row that still names this batch, and no other. */
  settled(lease: Lease, outcomes: ReadonlyMap<bigint, Outcome>, ids: ReadonlySet<bigint>): void {
    const { rows } = this.world;
    const ours = Array.from(outcomes.keys()).filter(
      (id) => rows.get(id)?.status === "processing" && rows.get(id)?.batch === lease.claimBatchId,
    );
    expect(ids).toEqual(new Set(ours));
    for (const id of ours) {
      const row = rows.get(id);
      const outcome = outcomes.get(id);
      if (row === undefined || outcome === undefined) continue;
      row.status = outcome.kind === "done" ? "done" : outcome.kind === "fail" ? "failed" : "pending";
      row.batch = null;
      row.leaseHolds = false;
      if (outcome.kind === "release" || !outcome.sent) row.refunds += 1;
      if ((outcome.kind === "retry" && outcome.counted) || (outcome.kind === "fail" && outcome.sent)) row.counted += 1;
    }
  }

  drop(): void {
    this.former = this.lease ?? this.former;
    this.lease = null;
    this.outcomes = null;
    this.prepared = null;
  }
}

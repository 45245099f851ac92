import { sql } from "drizzle-orm";
import { array } from "../db/sql.ts";
import { appending } from "../outbox/append.ts";
import { queues } from "../outbox/queue.ts";
import { type EventRow, holdingQueues, readRows } from "../outbox/rows.ts";
import { type Crew, openCrew } from "./crew.ts";
import type { EvidenceFolder } from "./evidence.ts";
import type { DrillOptions, World } from "./world.ts";

/** What a drill works with: its world, its processes, and what it has written. */
export type Stage = World &
  Omit<Crew, "ask"> & {
    readonly runId: string;
    readonly options: DrillOptions;
    readonly evidence: EvidenceFolder;
    /** Writes a tag through the API, and returns its id. */
    readonly createTag: () => Promise<string>;
    readonly deleteTag: (id: string) => Promise<void>;
    /** The events of the drill's entities in the search queue, the oldest first. */
    readonly searchEvents: () => Promise<readonly EventRow[]>;
    readonly chronicleEvents: () => Promise<readonly EventRow[]>;
    /** Those of both queues. */
    readonly events: () => Promise<readonly EventRow[]>;
    /** Waits until all of them are done. */
    readonly landed: () => Promise<void>;
    /** How many events the drill has appended to each queue, by its projection. */
    readonly appended: () => Readonly<Record<string, number>>;
    /** Nothing is claimed while `work` runs: what it starts finds all that waits at once. */
    readonly holdingQueue: <T>(work: () => Promise<T>) => Promise<T>;
    /** Appends one more event, as a writer that delivers twice would. An entity that is not the drill's becomes so. */
    readonly appendEvent: (
      projection: "search" | "chronicle",
      event: { readonly entityType: string; readonly entityId: string; readonly op: string; readonly version: string },
    ) => Promise<void>;
    /** Tags that the drill has written and not deleted. */
    readonly tags: () => readonly string[];
    /** Entities of the drill, the deleted ones included. */
    readonly entities: () => readonly string[];
  };

const tagsPath = "/api/v1/tags";

/** Starts the API of a drill. What is opened here ends with `close`. */
export async function openStage(
  world: World,
  runId: string,
  options: DrillOptions,
  evidence: EvidenceFolder,
): Promise<Stage> {
  const { db } = world;
  const tags = new Set<string>();
  const entities = new Set<string>();
  const appended = { [queues.search.projection]: 0, [queues.chronicle.projection]: 0 };

  const { ask, ...crew } = await openCrew(world, runId, options, evidence);

  const searchEvents = () => readRows(db, queues.search, [...entities]);
  const chronicleEvents = async () => {
    const told = await db.execute<{ id: string }>(
      sql`select id::text from chronicle_events where entity_id = any(${array("uuid", [...entities])})`,
    );
    const ids = told.map(({ id }) => id);
    return await readRows(db, queues.chronicle, ids);
  };
  const events = async () => [...(await searchEvents()), ...(await chronicleEvents())];
  const written = () => {
    for (const { projection } of Object.values(queues)) appended[projection] = (appended[projection] ?? 0) + 1;
  };

  return {
    ...world,
    ...crew,
    runId,
    options,
    evidence,
    createTag: async () => {
      const answer: unknown = JSON.parse(
        await ask("POST", tagsPath, { name: `drill ${crypto.randomUUID()}`, color: "#6366F1" }),
      );
      if (typeof answer !== "object" || answer === null || !("id" in answer) || typeof answer.id !== "string")
        throw new Error("a tag without an id");
      written();
      tags.add(answer.id);
      entities.add(answer.id);
      return answer.id;
    },
    deleteTag: async (id) => {
      await ask("DELETE", `${tagsPath}/${id}`);
      written();
      tags.delete(id);
    },
    searchEvents,
    chronicleEvents,
    events,
    landed: () =>
      crew.until("every event to be done", async () => {
        const rows = await events();
        return rows.length > 0 && rows.every(({ status }) => status === "done");
      }),
    appended: () => ({ ...appended }),
    holdingQueue: (work) => holdingQueues(db, work),
    appendEvent: async (projection, { entityType, entityId, op, version }) => {
      const queue = queues[projection];
      if (projection === "search") entities.add(entityId);
      appended[queue.projection] = (appended[queue.projection] ?? 0) + 1;
      const row = sql`select ${entityType}::text, ${entityId}::uuid, ${op}::text, ${version}::bigint, null, null`;
      await db.execute(appending(queue, row));
    },
    tags: () => [...tags],
    entities: () => [...entities],
  };
}

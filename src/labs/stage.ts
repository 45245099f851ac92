import { join } from "node:path";
import type { Client } from "@elastic/elasticsearch";
import { sql } from "drizzle-orm";
import type { Db } from "../db/client.ts";
import { CommandError } from "../errors.ts";
import { appending } from "../outbox/append.ts";
import { queues } from "../outbox/event.ts";
import { type EventRow, holdingQueues, readRows } from "../outbox/rows.ts";
import type { EvidenceFolder } from "./evidence.ts";
import { type Page, parsePage, sumOf } from "./metrics.ts";
import { type Child, freePort, startChild } from "./processes.ts";

/** Where a drill takes place: servers that are there, and what the processes of the drill need to find them. */
export type World = {
  readonly db: Db;
  readonly client: Client;
  /** Alias of the search index. */
  readonly index: string;
  /** Fires when the drill shall end before its time. */
  readonly signal: AbortSignal;
  /** The environment of every process. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where traces are asked for. */
  readonly tracesUrl: string;
  /** A trace store of the drill's own, which it may stop, and start again on the same port. */
  readonly openCollector: (port: number) => Promise<{ readonly url: string; readonly stop: () => Promise<void> }>;
};

export type DrillOptions = {
  /** Seconds that each thing a drill waits for may take. */
  readonly duration: number;
  /** Metrics ports of the drill's workers, in their order; free ones where none is given. */
  readonly metricsPorts: readonly (number | undefined)[];
  /** Seconds between a worker's start and what is done with it. */
  readonly scrapeDelay: number;
  readonly op: "upsert" | "delete";
  readonly triggerCount: number | undefined;
  readonly everyN: number;
  readonly bulkSize: number;
  readonly partialStatus: number;
  readonly breakClaimSleep: number;
  readonly leaseSeconds: number;
  readonly deleteCount: number;
};

/** A worker process, alive. */
export type Worker = Child & {
  readonly metrics: () => Promise<Page>;
  /** Waits until a counter has come to `least`: a row says that it is done before the worker has counted it. */
  readonly counted: (name: string, labels: Readonly<Record<string, string>>, least?: number) => Promise<void>;
  /** Keeps the page as `_metrics/metrics-<name>.txt`. */
  readonly scrape: (name: string) => Promise<void>;
};

export type Stage = World & {
  readonly runId: string;
  readonly options: DrillOptions;
  readonly evidence: EvidenceFolder;
  /** Resolves when `holds` answers true; throws a CommandError when that takes longer than `--duration`, and when the drill shall end before its time. */
  readonly until: (what: string, holds: () => boolean | Promise<boolean>) => Promise<void>;
  /** Writes a tag through the API, and returns its id. */
  readonly createTag: () => Promise<string>;
  readonly deleteTag: (id: string) => Promise<void>;
  /** Starts `wordloom work`, alive when this returns, with variables of its own. */
  readonly worker: (label: string, env?: Readonly<Record<string, string>>, args?: readonly string[]) => Promise<Worker>;
  /** Runs another command of the binary to its end; its output is kept. Throws when it fails. */
  readonly command: (label: string, args: readonly string[]) => Promise<void>;
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
  /** Ends the drill's processes. */
  readonly close: () => Promise<void>;
};

const pollMs = 50;
/** What starting a process may take, whatever else is waited for. */
const startSeconds = 60;
/** How long a worker runs whose drill was killed, and cannot end it any more. */
const orphanSeconds = 900;

/** Starts the API of a drill. What it opens ends with `close`. */
export async function openStage(
  world: World,
  runId: string,
  options: DrillOptions,
  evidence: EvidenceFolder,
): Promise<Stage> {
  const { db, env } = world;
  const children: Child[] = [];
  const tags = new Set<string>();
  const entities = new Set<string>();
  const ports = [...options.metricsPorts];
  const appended = { [queues.search.projection]: 0, [queues.chronicle.projection]: 0 };

  const stopIfAsked = () => {
    if (world.signal.aborted)
      throw new CommandError("failed", `stopped by a signal; what there is stands in ${evidence.dir}`);
  };

  async function within(
    seconds: number,
    what: string,
    holds: () => boolean | Promise<boolean>,
    remedy: string,
  ): Promise<void> {
    const end = performance.now() + seconds * 1000;
    while (!(await holds())) {
      stopIfAsked();
      if (performance.now() > end)
        throw new CommandError(
          "failed",
          `waited ${seconds} s for ${what}; what there is stands in ${evidence.dir}${remedy}`,
        );
      await Bun.sleep(pollMs);
    }
  }
  const until: Stage["until"] = (what, holds) =>
    within(options.duration, what, holds, ", and --duration gives it longer");

  async function alive(child: Child, url: string): Promise<void> {
    let code: number | null | undefined;
    void child.exited.then((ended) => {
      code = ended;
    });
    const answers = async () => {
      if (code !== undefined)
        throw new CommandError("failed", `${child.label} ended with ${code}: ${child.lastLines()}`);
      return await fetch(url).then(
        ({ ok }) => ok,
        () => false,
      );
    };
    await within(startSeconds, `${child.label} to answer`, answers, "");
  }

  function start(label: string, args: readonly string[], own: Readonly<Record<string, string>>): Child {
    const child = startChild(label, args, { ...env, ...own }, join(evidence.dir, "_logs", `${label}-${runId}.log`));
    children.push(child);
    return child;
  }

  const apiPort = freePort();
  const apiUrl = `http://127.0.0.1:${apiPort}`;
  const api = start("api", ["serve", "--port", String(apiPort)], {});
  try {
    await alive(api, `${apiUrl}/readyz`);
  } catch (error) {
    await api.stop();
    throw error;
  }

  /** The body of a good answer of one of the drill's processes. */
  async function asked(url: string, request: RequestInit, { label, lastLines }: Child): Promise<string> {
    const timeout = AbortSignal.timeout(startSeconds * 1000);
    const response = await fetch(url, { ...request, signal: timeout }).catch((error: unknown) => {
      throw new CommandError("failed", `${label} does not answer; its last words: ${lastLines()}`, { cause: error });
    });
    if (!response.ok) throw new CommandError("failed", `${label} answered ${response.status}`);
    return await response.text();
  }

  async function ask(method: string, path: string, body?: unknown): Promise<string> {
    const request = {
      method,
      headers: { "x-request-id": runId },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    };
    return await asked(`${apiUrl}/api/v1/tags${path}`, request, api);
  }

  const searchEvents = () => readRows(db, queues.search, [...entities]);
  const chronicleEvents = async () => {
    const told = await db.execute<{ id: string }>(
      sql`select id::text from chronicle_events where entity_id = any(${`{${[...entities].join(",")}}`}::uuid[])`,
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
    runId,
    options,
    evidence,
    until,
    createTag: async () => {
      const answer: unknown = JSON.parse(
        await ask("POST", "", { name: `drill ${crypto.randomUUID()}`, color: "#6366F1" }),
      );
      if (typeof answer !== "object" || answer === null || !("id" in answer) || typeof answer.id !== "string")
        throw new Error("a tag without an id");
      written();
      tags.add(answer.id);
      entities.add(answer.id);
      return answer.id;
    },
    deleteTag: async (id) => {
      await ask("DELETE", `/${id}`);
      written();
      tags.delete(id);
    },
    worker: async (label, own = {}, args = []) => {
      const metricsPort = ports.shift() ?? freePort();
      const healthPort = freePort();
      const child = start(label, ["work", "--worker-id", `labs-${label}`, ...args], {
        OUTBOX_METRICS_PORT: String(metricsPort),
        OUTBOX_HTTP_PORT: String(healthPort),
        OUTBOX_RUN_SECONDS: String(orphanSeconds),
        ...own,
      });
      await alive(child, `http://127.0.0.1:${healthPort}/livez`);
      const ready = performance.now() + options.scrapeDelay * 1000;
      await within(options.scrapeDelay + 1, "the delay", () => performance.now() >= ready, "");
      const page = async () => await asked(`http://127.0.0.1:${metricsPort}/metrics`, {}, child);
      const metrics = async () => parsePage(await page());
      return {
        ...child,
        metrics,
        counted: (name, labels, least = 1) =>
          until(`${name} to come to ${least}`, async () => sumOf(await metrics(), name, labels) >= least),
        scrape: async (name) => evidence.write(`_metrics/metrics-${name}.txt`, await page()),
      };
    },
    command: async (label, args) => {
      const child = start(label, args, {});
      const code = await child.exited;
      if (code !== 0) throw new CommandError("failed", `wordloom ${args[0]} ended with ${code}: ${child.lastLines()}`);
    },
    searchEvents,
    chronicleEvents,
    events,
    landed: () =>
      until("every event to be done", async () => {
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
    close: async () => {
      await Promise.all(children.map((child) => child.stop()));
    },
  };
}

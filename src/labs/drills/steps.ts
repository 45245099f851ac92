import { replaysOf } from "../../outbox/replay.ts";
import type { EventRow } from "../../outbox/rows.ts";
import type { Worker } from "../crew.ts";
import { atLeast, type Check, type Evidence, holds, none, told } from "../drill.ts";
import { readList } from "../evidence.ts";
import type { Stage } from "../stage.ts";

/** Has the index refuse every write, or take them again. */
export const blockWrites = async (
  { client, index }: Pick<Stage, "client" | "index">,
  blocked: boolean,
): Promise<void> => {
  await client.indices.putSettings({ index, settings: { "index.blocks.write": blocked } });
};

/** What was broken is whole again, and another worker finds it so: everything lands. */
export async function landWithAnother(stage: Stage): Promise<void> {
  const after = await stage.worker("worker-after");
  await stage.landed();
  await after.scrape("recovered");
}

/** Waits until the worker has scheduled a retry for this reason, and lets another one do the rest. */
export async function retryThenLand(stage: Stage, worker: Worker, reason: string): Promise<void> {
  await worker.counted("outbox_retry_scheduled_total", { reason });
  await worker.scrape("after");
  await worker.stop();
  await landWithAnother(stage);
}

/** Tried again for this reason, in metric and log line, and nothing failed for good. */
export const retried = (evidence: Evidence, reason: string): readonly Check[] => [
  atLeast(`outbox_retry_scheduled_total ${reason}`, evidence.delta("outbox_retry_scheduled_total", { reason }), 1),
  atLeast(`outbox_failed_total ${reason}`, evidence.delta("outbox_failed_total", { reason }), 1),
  none("outbox_terminal_failed_total", evidence.delta("outbox_terminal_failed_total")),
  told(evidence, "of a retry with its reason", "outbox.process", { result: "retry", reason }),
];

const failedEvents = async (stage: Stage): Promise<readonly EventRow[]> =>
  (await stage.searchEvents()).filter(({ status }) => status === "failed");

/** Replays the drill's failed events as an operator would, and keeps what the audit says of it. */
export async function replayFailed(stage: Stage, why: string): Promise<void> {
  const ids = (await failedEvents(stage)).map(({ id }) => id);
  await stage.command("replay", ["replay", "--by", "labs", "--reason", why, ...ids.flatMap((id) => ["--id", id])]);
  stage.evidence.write("_replays.json", await replaysOf(stage.db, ids));
}

/** Of the event that failed, and of no other. */
export function replayedOnce({ dir }: Evidence): Check {
  const audit = readList(dir, "_replays.json");
  return holds("the replay left who and why, for the one that had failed", "1 row", audit.length === 1, audit);
}

import { replaysOf } from "../../outbox/replay.ts";
import type { EventRow } from "../../outbox/rows.ts";
import { type Check, type Evidence, holds } from "../drill.ts";
import { readList } from "../evidence.ts";
import type { Stage } from "../stage.ts";

/** Has the index refuse every write, or take them again. */
export const blockWrites = async (
  { client, index }: Pick<Stage, "client" | "index">,
  blocked: boolean,
): Promise<void> => {
  await client.indices.putSettings({ index, settings: { "index.blocks.write": blocked } });
};

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

import { SingleBar } from "cli-progress";
import type { Context } from "./context.ts";

/** `1 file`, `2 files` */
export const counted = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** A bar on a terminal, nothing elsewhere. */
export function progressBar(
  context: Context,
  unit: string,
): { update: (done: number, total: number) => void; stop: () => void } {
  if (context.process.stderr.isTTY !== true || context.env["TERM"] === "dumb")
    return { update: () => {}, stop: () => {} };
  const bar = new SingleBar({
    format: `{bar} {value}/{total} ${unit}`,
    barsize: 40,
    clearOnComplete: true,
    hideCursor: true,
  });
  let started = false;
  return {
    update: (done, total) => {
      if (!started) bar.start(total, done);
      started = true;
      bar.update(done);
    },
    stop: () => bar.stop(),
  };
}

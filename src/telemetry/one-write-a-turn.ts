import type { DestinationStream } from "pino";

/**
 * Hands on in one write what is written in one turn of the event loop. A traced batch writes a line for each of its events, and a system call for each cost as much as making
 * the line. A process that exits in that turn writes them first; only SIGKILL in the same turn takes them along, as it would take lines not yet made.
 */
export function oneWriteATurn(target: DestinationStream): DestinationStream & { readonly flushSync: () => void } {
  let lines = "";
  const flushSync = () => {
    const written = lines;
    lines = "";
    if (written !== "") target.write(written);
  };
  process.on("exit", flushSync);
  return {
    write: (line) => {
      if (lines === "") queueMicrotask(flushSync);
      lines += line;
    },
    flushSync,
  };
}

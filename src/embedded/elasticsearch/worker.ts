/** The thread of the embedded engine. It gets one message that says what to open, and later at most one to stop. */
import type { FromWorker, ToWorker } from "./engine.ts";
import { serve } from "./server.ts";
import { pointsInTime } from "./snapshot.ts";
import { openStore } from "./store.ts";
import { forgetDeletions } from "./write.ts";

declare const self: Worker;

const forgetEveryMs = 60_000;
let stop: (() => Promise<void>) | undefined;

self.addEventListener("message", async ({ data }: MessageEvent<ToWorker>) => {
  if (data.kind === "start") {
    start(data.dataDir, data.port);
  } else {
    await stop?.();
    tell({ kind: "stopped" });
  }
});

function start(dataDir: string, port: number): void {
  try {
    const store = openStore(dataDir);
    try {
      const server = serve(store, pointsInTime(store), port);
      const forgetting = setInterval(() => {
        try {
          for (const index of store.indices.values()) forgetDeletions(store.db, index, Date.now());
        } catch {
          // A full disk, for example: the writer gets the error. An exception here would end the thread.
        }
      }, forgetEveryMs);
      stop = async () => {
        clearInterval(forgetting);
        await server.stop(false);
        store.close();
      };
      tell({ kind: "listening", port: server.port ?? port });
    } catch (cause) {
      store.close();
      throw cause;
    }
  } catch (cause) {
    const { message, code } = cause as Error & { code?: string };
    tell({ kind: "failed", message, ...(code === undefined ? {} : { code }) });
  }
}

function tell(message: FromWorker): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has no origin to name
  self.postMessage(message);
}

/** The thread of the embedded trace store. It gets one message that says what to open, and later at most one to stop. */
import type { CollectorOptions, FromWorker, ToWorker } from "./collector.ts";
import { serve } from "./server.ts";
import { openStore } from "./store.ts";

declare const self: Worker;

let stop: (() => Promise<void>) | undefined;

self.addEventListener("message", async ({ data }: MessageEvent<ToWorker>) => {
  if (data.kind === "start") {
    start(data.options);
  } else {
    await stop?.();
    tell({ kind: "stopped" });
  }
});

function start({ dataDir, port, queryPort, hostname, maxSpans }: Required<CollectorOptions>): void {
  try {
    using undo = new DisposableStack();
    const store = undo.adopt(openStore(dataDir, maxSpans), ({ close }) => close());
    const open = (at: number) => undo.adopt(serve(store, hostname, at), (server) => void server.stop(true));
    const server = open(port);
    const query = queryPort === null ? server : open(queryPort);
    const opened = undo.move();
    stop = async () => {
      await Promise.all([server.stop(false), query.stop(false)]);
      opened.dispose();
    };
    tell({ kind: "listening", port: server.port ?? port, queryPort: query.port ?? port });
  } catch (cause) {
    const { message, code } = cause as Error & { code?: string };
    tell({ kind: "failed", message, ...(code === undefined ? {} : { code }) });
  }
}

function tell(message: FromWorker): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has no origin to name
  self.postMessage(message);
}

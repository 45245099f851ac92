/** The thread of the embedded engine. */
import { runThread } from "../thread.ts";
import type { Listening, Start } from "./engine.ts";
import { serve } from "./server.ts";
import { pointsInTime } from "./snapshot.ts";
import { openStore } from "./store.ts";
import { forgetDeletions } from "./write.ts";

const forgetEveryMs = 60_000;

runThread<Start, Listening>(({ dataDir, port }) => {
  using undo = new DisposableStack();
  const store = undo.adopt(openStore(dataDir), ({ close }) => close());
  const server = serve(store, pointsInTime(store), port);
  const forgetting = setInterval(() => {
    try {
      for (const index of store.indices.values()) forgetDeletions(store.db, index, Date.now());
    } catch {
      // A full disk, for example: the writer gets the error. An exception here would end the thread.
    }
  }, forgetEveryMs);
  const opened = undo.move();
  return {
    listening: { port: server.port ?? port },
    stop: async () => {
      clearInterval(forgetting);
      await server.stop(false);
      opened.dispose();
    },
  };
});

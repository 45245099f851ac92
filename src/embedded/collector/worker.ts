/** The thread of the embedded trace store. */
import { runThread } from "../thread.ts";
import type { Listening, Start } from "./collector.ts";
import { serve } from "./server.ts";
import { openStore } from "./store.ts";

runThread<Start, Listening>(({ dataDir, port, queryPort, hostname, maxSpans }) => {
  using undo = new DisposableStack();
  const store = undo.adopt(openStore(dataDir, maxSpans), ({ close }) => close());
  const open = (at: number) => undo.adopt(serve(store, hostname, at), (server) => void server.stop(true));
  const server = open(port);
  const query = queryPort === null ? server : open(queryPort);
  const opened = undo.move();
  return {
    listening: { port: server.port ?? port, queryPort: query.port ?? port },
    stop: async () => {
      await Promise.all([server.stop(false), query.stop(false)]);
      opened.dispose();
    },
  };
});

import { every } from "../../pause.ts";
import { type EmbeddedPostgres, type StartOptions, startPostgres } from "./start.ts";

export type KeptPostgres = Pick<EmbeddedPostgres, "socketPath" | "createDatabase" | "stop">;

const watchMs = 500;
/** A server that does not start (a full disk) is not asked to all the time. */
const patienceMs = 5000;

/**
 * As `startPostgres`; and when the server ends while this process uses it (the kernel wanted its memory, somebody killed it), it is started again, on the same socket. Of
 * several processes one does it and the others adopt it. Whoever needs it meanwhile sees that it does not answer; its log says why.
 */
export async function keepPostgres(options: StartOptions): Promise<KeptPostgres> {
  let server = await startPostgres(options);
  let notBefore = 0;

  async function mend(): Promise<void> {
    if (performance.now() < notBefore || (await server.runs())) return;
    try {
      const ended = server;
      server = await startPostgres(options);
      await ended.stop();
    } catch {
      notBefore = performance.now() + patienceMs;
    }
  }

  const stopWatching = every(watchMs, mend);
  let stopping: Promise<void> | undefined;
  const stop = async () => {
    await stopWatching();
    await server.stop();
  };
  return {
    socketPath: server.socketPath,
    createDatabase: (name) => server.createDatabase(name),
    stop: () => {
      stopping ??= stop();
      return stopping;
    },
  };
}

import { codeOf } from "../../errors.ts";
import { type Engine, startEngine } from "./engine.ts";

/** The engine of a data folder, whichever process runs it. */
export type SharedEngine = {
  readonly url: string;
  /** Stops it if this process runs it, else leaves it to the one that does. Idempotent. */
  readonly stop: () => Promise<void>;
};

const deadlineMs = 10_000;
const watchMs = 500;

/** Whether an engine answers there. */
const answers = (url: string): Promise<boolean> =>
  fetch(url, { signal: AbortSignal.timeout(1000) }).then(
    (response) => response.headers.get("x-elastic-product") === "Elasticsearch",
    () => false,
  );

/**
 * Starts the engine on `dataDir`, or uses the one that another process runs there on the same port. When that one goes away, this process takes
 * over within a second, so that the processes of one machine may come and go in any order. Rejects as `startEngine` does, and when another process
 * has the data but does not answer on the port.
 */
export async function joinEngine({ dataDir, port }: { dataDir: string; port: number }): Promise<SharedEngine> {
  const adoptable = `http://127.0.0.1:${port}`;
  let own: Engine | undefined;
  /** Undefined when there is an engine to use now, else what is in the way for the moment. */
  const attempt = async (): Promise<Error | undefined> => {
    try {
      own = await startEngine({ dataDir, port });
      return undefined;
    } catch (error) {
      if (!(error instanceof Error) || codeOf(error) !== "DATA_IN_USE") throw error;
      return port !== 0 && (await answers(adoptable)) ? undefined : error;
    }
  };

  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const obstacle = await attempt();
    if (obstacle === undefined) break;
    // Its owner is starting up or going away.
    if (port === 0 || performance.now() > deadline) throw obstacle;
    await Bun.sleep(50);
  }

  let stopped = false;
  let watching: Promise<unknown> = Promise.resolve();
  let busy = false;
  const watch = setInterval(() => {
    if (own !== undefined || busy) return;
    busy = true;
    watching = answers(adoptable)
      .then((well) => (well || stopped ? undefined : attempt()))
      // Whoever needs the engine sees that it does not answer; the next turn tries again.
      .catch(() => undefined)
      .finally(() => {
        busy = false;
      });
  }, watchMs);
  watch.unref();
  return {
    url: own?.url ?? adoptable,
    stop: async () => {
      stopped = true;
      clearInterval(watch);
      await watching;
      await own?.stop();
    },
  };
}

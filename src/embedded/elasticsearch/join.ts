import { codeOf } from "../../errors.ts";
import { every } from "../../pause.ts";
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
 * over within a second, so that the processes of one machine may come and go in any order; so it does when an exception has ended its own. Rejects as `startEngine` does, and
 * when another process has the data but does not answer on the port.
 */
export async function joinEngine(options: { dataDir: string; port: number }): Promise<SharedEngine> {
  const { dataDir } = options;
  let { port } = options;
  let adoptable = `http://127.0.0.1:${port}`;
  let own: Engine | undefined;
  /** Undefined when there is an engine to use now, else what is in the way for the moment. */
  const attempt = async (): Promise<Error | undefined> => {
    try {
      const engine = await startEngine({ dataDir, port });
      own = engine;
      // The one that comes after it is to be found where it was.
      adoptable = engine.url;
      port = Number(new URL(engine.url).port);
      void engine.ended.then(() => {
        own = undefined;
      });
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
  const stopWatching = every(watchMs, async () => {
    if (own !== undefined || (await answers(adoptable)) || stopped) return;
    // Whoever needs the engine sees that it does not answer; the next turn tries again.
    await attempt().catch(() => undefined);
  });
  return {
    url: adoptable,
    stop: async () => {
      stopped = true;
      await stopWatching();
      await own?.stop();
    },
  };
}

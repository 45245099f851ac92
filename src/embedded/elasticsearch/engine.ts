/** What the two threads say to each other. */
export type ToWorker =
  | { readonly kind: "start"; readonly dataDir: string; readonly port: number }
  | { readonly kind: "stop" };
export type FromWorker =
  | { readonly kind: "listening"; readonly port: number }
  | { readonly kind: "failed"; readonly message: string; readonly code?: string }
  | { readonly kind: "stopped" };

export interface Engine {
  /** Where it answers: loopback only, no credentials. */
  readonly url: string;
  /** Lets running requests end, closes the data and ends the thread. */
  stop(): Promise<void>;
}

/**
 * In a compiled binary every module has the binary's own URL, and the worker, an entry point of its own, lies where it
 * lies below `src`, the root of the build.
 */
const workerPath = import.meta.url.includes("/$bunfs/") ? "./embedded/elasticsearch/worker.ts" : "./worker.ts";

/**
 * Starts the embedded search engine on a thread of its own and resolves when it answers. Port 0 takes a free one.
 * Rejects with the reason, and `code` where there is one: EADDRINUSE for a port in use; DATA_IN_USE for another process on
 * the same `dataDir`; a folder that cannot be written.
 */
export async function startEngine({ dataDir, port }: { dataDir: string; port: number }): Promise<Engine> {
  const worker = new Worker(new URL(workerPath, import.meta.url).href);
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has no origin to name
  const say = (message: ToWorker) => worker.postMessage(message);
  try {
    const listening = replyOf(worker, "listening");
    say({ kind: "start", dataDir, port });
    const { port: bound } = await listening;
    const stop = async () => {
      const stopped = replyOf(worker, "stopped");
      say({ kind: "stop" });
      await stopped;
      worker.terminate();
    };
    let stopping: Promise<void> | undefined;
    return {
      url: `http://127.0.0.1:${bound}`,
      stop: () => {
        stopping ??= stop();
        return stopping;
      },
    };
  } catch (cause) {
    worker.terminate();
    throw cause;
  }
}

/** The next message of that kind. Rejects when the worker reports a failure or breaks. */
function replyOf<Kind extends FromWorker["kind"]>(
  worker: Worker,
  kind: Kind,
): Promise<Extract<FromWorker, { kind: Kind }>> {
  return new Promise((resolve, reject) => {
    const listen = ({ data }: MessageEvent<FromWorker>) => {
      if (isKind(data, kind)) resolve(data);
      if (data.kind === "failed") {
        const failure = new Error(`the embedded search engine did not start: ${data.message}`);
        reject(data.code === undefined ? failure : Object.assign(failure, { code: data.code }));
      }
    };
    worker.addEventListener("message", listen);
    worker.addEventListener("error", ({ message }) =>
      reject(new Error(`the embedded search engine broke: ${message}`)),
    );
  });
}

function isKind<Kind extends FromWorker["kind"]>(
  message: FromWorker,
  kind: Kind,
): message is Extract<FromWorker, { kind: Kind }> {
  return message.kind === kind;
}

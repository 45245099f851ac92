/** Both ends of the line to an embedded server that runs on a thread of its own. */

/** What the thread says: that it listens, with the facts of `Listening`; why it cannot; that it is closed. */
type FromThread<Listening extends object> =
  | ({ readonly kind: "listening" } & Listening)
  | { readonly kind: "failed"; readonly message: string; readonly code?: string }
  | { readonly kind: "stopped" };

/** What the thread is told: once what to open, and later at most once to stop. */
type ToThread<Start extends object> = ({ readonly kind: "start" } & Start) | { readonly kind: "stop" };

export type Thread<Listening extends object> = {
  readonly listening: Listening;
  /** Resolves when the thread is over: stopped, or ended by an exception. */
  readonly ended: Promise<void>;
  /** Lets running requests end, closes the data and ends the thread. Idempotent. */
  readonly stop: () => Promise<void>;
};

/**
 * Starts the server of a worker and resolves when it listens. Rejects with the reason, which names it as `what`, and with `code` where the worker gave one; the thread
 * is ended then. The caller makes the worker: a compiled binary finds it only by the very form `new Worker(new URL(…))`.
 */
export async function startThread<Listening extends object>(
  worker: Worker,
  what: string,
  start: object,
): Promise<Thread<Listening>> {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has no origin to name
  const say = (message: ToThread<object>) => worker.postMessage(message);
  /** A thread that an exception has ended answers nothing any more. */
  const closed = Promise.withResolvers<void>();
  worker.addEventListener("close", () => closed.resolve(), { once: true });
  /** The next message that `read` makes something of. */
  const reply = <T>(read: (message: FromThread<Listening>) => T | undefined) =>
    new Promise<T>((resolve, reject) => {
      worker.addEventListener("message", ({ data }: MessageEvent<FromThread<Listening>>) => {
        const told = read(data);
        if (told !== undefined) resolve(told);
        else if (data.kind === "failed") {
          const failure = new Error(`${what} did not start: ${data.message}`);
          reject(data.code === undefined ? failure : Object.assign(failure, { code: data.code }));
        }
      });
      worker.addEventListener("error", ({ message }) => reject(new Error(`${what} broke: ${message}`)));
    });
  try {
    const listens = reply((message) => (message.kind === "listening" ? message : undefined));
    say({ kind: "start", ...start });
    const listening = await listens;
    let stopping: Promise<void> | undefined;
    const stop = async () => {
      const stopped = reply((message) => (message.kind === "stopped" ? true : undefined));
      say({ kind: "stop" });
      await Promise.race([stopped, closed.promise]);
      worker.terminate();
    };
    return {
      listening,
      ended: closed.promise,
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

declare const self: Worker;

/** A server that listens; `stop` lets running requests end and closes the data. */
export type Opened<Listening extends object> = { readonly listening: Listening; readonly stop: () => Promise<void> };

/** The thread's end: `open` starts the server. It throws, with nothing left open, where it cannot; the reason is passed on, with its `code`. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller names what its own startThread sends
export function runThread<Start extends object, Listening extends object>(
  open: (start: Start) => Opened<Listening>,
): void {
  const tell = (message: FromThread<Listening>) => {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has no origin to name
    self.postMessage(message);
  };
  let opened: Opened<Listening> | undefined;
  self.addEventListener("message", async ({ data }: MessageEvent<ToThread<Start>>) => {
    if (data.kind === "stop") {
      await opened?.stop();
      tell({ kind: "stopped" });
      return;
    }
    try {
      opened = open(data);
      tell({ kind: "listening", ...opened.listening });
    } catch (cause) {
      const { message, code } = cause as Error & { code?: string };
      tell({ kind: "failed", message, ...(code === undefined ? {} : { code }) });
    }
  });
}

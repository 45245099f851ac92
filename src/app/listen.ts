import { CommandError, codeOf } from "../errors.ts";

/** Runs what listens on a port, and says in one line why it cannot. Throws a CommandError that ends with `remedy`. */
export function listening<T>(host: string, port: number, remedy: string, listen: () => T): T {
  try {
    return listen();
  } catch (error) {
    const code = codeOf(error);
    if (code === "EINVAL" || code === "EADDRNOTAVAIL")
      throw new CommandError("failed", `${host} is not an address of this machine; correct --host or API_HOST`, {
        cause: error,
      });
    const why =
      code === "EADDRINUSE"
        ? "is in use"
        : code === "EACCES"
          ? "may not be opened by this user"
          : `cannot be opened (${code ?? String(error)})`;
    throw new CommandError("failed", `port ${port} on ${host} ${why}; ${remedy}`, { cause: error });
  }
}

/** Resolves when the signal fires, at once if it has. */
export const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });

/** Fires `graceMs` after `stop`. */
export function graceAfter(stop: AbortSignal, graceMs: number): AbortSignal {
  const over = new AbortController();
  void aborted(stop).then(() => setTimeout(() => over.abort(), graceMs));
  return over.signal;
}

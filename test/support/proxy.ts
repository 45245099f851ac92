import { createConnection, createServer, type Socket } from "node:net";
import { join } from "node:path";
import type { DatabaseAddress } from "../../src/db/address.ts";

/** A way to a database whose weather tests make: over TCP, or over a unix socket, which the environment guard lets real processes use. */
export interface TcpProxy {
  readonly address: DatabaseAddress;
  /** Lets everything through again. Connections that lived through a silence stay silent: what was swallowed is gone. */
  pass(): void;
  /** Half-open from now on: takes connections and bytes, of those that are open too, and answers nothing. */
  swallow(): void;
  /** Resets every open connection. */
  reset(): void;
  /** Delays every byte of the server. */
  delay(ms: number): void;
  /** Lets so many bytes of the server's next answer through, then resets the connection that it goes to. */
  cutAfter(bytes: number): void;
  /** Connections that are open. */
  readonly open: () => number;
  close(): Promise<void>;
}

/** Starts a proxy on a port of its own, or on the unix socket of port 5432 in `folder`. */
export async function startProxy(target: DatabaseAddress, folder?: string): Promise<TcpProxy> {
  const socketPath = folder === undefined ? undefined : join(folder, ".s.PGSQL.5432");
  const drop = (near: Socket) => (socketPath === undefined ? near.resetAndDestroy() : near.destroy());
  const pairs = new Set<{ near: Socket; far: Socket; silent: boolean }>();
  let silent = false;
  let delayMs = 0;
  let cut: number | null = null;
  const server = createServer((near) => {
    const far =
      target.socketPath === undefined
        ? createConnection({ host: target.host, port: target.port })
        : createConnection({ path: target.socketPath });
    const pair = { near, far, silent };
    pairs.add(pair);
    const end = () => {
      pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) socket.on("error", end).on("close", end);
    near.on("data", (chunk) => {
      if (!pair.silent) far.write(chunk);
    });
    far.on("data", (chunk: Buffer) => {
      if (pair.silent) return;
      if (cut !== null) {
        near.write(chunk.subarray(0, cut), () => drop(near));
        cut = null;
        return;
      }
      if (delayMs === 0) near.write(chunk);
      else setTimeout(() => near.writable && !pair.silent && near.write(chunk), delayMs);
    });
  });
  await new Promise<void>((resolve) => {
    if (socketPath === undefined) server.listen(0, "127.0.0.1", resolve);
    else server.listen(socketPath, resolve);
  });
  const at = server.address();
  const port = typeof at === "object" && at !== null ? at.port : target.port;
  const reset = () => {
    for (const { near, far } of pairs) {
      drop(near);
      far.destroy();
    }
  };
  return {
    address: { ...target, host: "127.0.0.1", port, socketPath },
    pass: () => {
      silent = false;
      delayMs = 0;
      cut = null;
    },
    swallow: () => {
      silent = true;
      for (const pair of pairs) pair.silent = true;
    },
    reset,
    delay: (ms) => {
      delayMs = ms;
    },
    cutAfter: (bytes) => {
      cut = bytes;
    },
    open: () => pairs.size,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        reset();
      }),
  };
}

import { createConnection, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DatabaseAddress } from "../../src/db/address.ts";
import { type Database, openDatabase } from "../../src/db/client.ts";

/** A way to a database that tests can shut. It starts shut: nothing answers behind it. */
export function openGate(address: DatabaseAddress): {
  /** A pool of two connections through it; whoever opens the gate closes both. */
  readonly behind: Database;
  /** Lets connections through; silent, it takes them and never answers. */
  readonly open: (options?: { silent?: boolean }) => Promise<void>;
  /** Cuts every connection and takes no new ones. */
  readonly close: () => Promise<void>;
} {
  const socketPath = join(tmpdir(), `wordloom-gate-${crypto.randomUUID()}`);
  const sockets = new Set<Socket>();
  let server: Server | undefined;
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => socket.destroy());
  };
  return {
    behind: openDatabase(
      { ...address, socketPath },
      { max: 2, applicationName: "gate", statementTimeoutMs: 5000, prepare: true },
    ),
    open: ({ silent = false } = {}) =>
      new Promise((resolve) => {
        server = createServer((near) => {
          keep(near);
          if (silent) return;
          const far =
            address.socketPath === undefined
              ? createConnection({ host: address.host, port: address.port })
              : createConnection({ path: address.socketPath });
          keep(far);
          near.pipe(far).on("close", () => near.destroy());
          far.pipe(near).on("close", () => far.destroy());
        }).listen(socketPath, resolve);
      }),
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        if (server) server.close(() => resolve());
        else resolve();
        server = undefined;
      }),
  };
}

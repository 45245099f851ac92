import { createConnection, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import type { DatabaseAddress } from "./address.ts";

/** An 8-byte SSLRequest (PostgreSQL protocol, 55.2.10): length 8, code 80877103. */
const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);

/** ReadyForQuery: 'Z', length 5, one byte of transaction status. The server owes nothing after it. */
function endsReady(chunk: Buffer): boolean {
  const at = chunk.length - 6;
  return at >= 0 && chunk[at] === 0x5a && chunk.readUInt32BE(at + 1) === 5;
}

/** The server may speak unasked: NotificationResponse, ParameterStatus, NoticeResponse. */
const unasked = new Set([0x41, 0x53, 0x4e]);

/**
 * Destroys the socket when the server has owed an answer for `deadlineMs`. postgres.js never times out on a half-open
 * connection; destroyed, it rejects what was in flight and connects anew.
 */
function watch(socket: Socket, deadlineMs: number): void {
  let overdue: ReturnType<typeof setTimeout> | undefined;
  const settle = () => {
    clearTimeout(overdue);
    overdue = undefined;
  };
  const expect = () => {
    clearTimeout(overdue);
    overdue = setTimeout(() => socket.destroy(new Error(`Postgres owed an answer for ${deadlineMs} ms`)), deadlineMs);
  };
  const write = socket.write.bind(socket);
  socket.write = ((...args: Parameters<typeof write>) => {
    // 'X' is Terminate: nothing answers it.
    const first: unknown = args[0];
    if (overdue === undefined && !(Buffer.isBuffer(first) && first[0] === 0x58)) expect();
    return write(...args);
  }) as typeof socket.write;
  socket.on("data", (chunk: Buffer) => {
    if (overdue === undefined) return;
    if (endsReady(chunk)) settle();
    else if (!unasked.has(chunk[0] ?? 0)) expect();
  });
  socket.on("close", settle);
}

/** Resolves once the event happens; rejects on error, early close, or after `timeoutMs`. */
function until(
  socket: Socket,
  event: "connect" | "secureConnect" | "data",
  timeoutMs: number,
): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const fail = (error?: Error) => {
      clean();
      socket.destroy();
      reject(error ?? Object.assign(new Error("the server closed the connection"), { code: "CONNECTION_CLOSED" }));
    };
    const late = () => fail(Object.assign(new Error(`no answer within ${timeoutMs} ms`), { code: "CONNECT_TIMEOUT" }));
    const timer = setTimeout(late, timeoutMs);
    const done = (chunk?: Buffer) => {
      clean();
      resolve(chunk);
    };
    const clean = () => {
      clearTimeout(timer);
      socket.off(event, done).off("error", fail).off("close", fail);
    };
    socket.once(event, done).once("error", fail).once("close", fail);
  });
}

async function secure(socket: Socket, address: DatabaseAddress, timeoutMs: number): Promise<TLSSocket> {
  socket.write(sslRequest);
  const answer = await until(socket, "data", timeoutMs);
  if (answer?.[0] !== 0x53) {
    socket.destroy();
    throw Object.assign(new Error("the server does not speak TLS, but sslmode asks for it"), { code: "TLS_REFUSED" });
  }
  const tls = connectTls({ socket, servername: address.host, rejectUnauthorized: address.tls === "verified" });
  await until(tls, "secureConnect", timeoutMs);
  return tls;
}

/** Opens a connected, watched socket for postgres.js. `deadlineMs` bounds every answer, `connectMs` the connection itself. */
export async function openSocket(address: DatabaseAddress, connectMs: number, deadlineMs: number): Promise<Socket> {
  const plain =
    address.socketPath === undefined
      ? createConnection({ host: address.host, port: address.port, noDelay: true, keepAlive: true })
      : createConnection({ path: address.socketPath });
  await until(plain, "connect", connectMs);
  const socket =
    address.tls === "off" || address.socketPath !== undefined ? plain : await secure(plain, address, connectMs);
  watch(socket, deadlineMs);
  return socket;
}

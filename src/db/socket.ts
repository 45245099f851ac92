import { createConnection, isIP, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import type { DatabaseAddress } from "./address.ts";

/** An 8-byte SSLRequest (PostgreSQL protocol, 55.2.10): length 8, code 80877103. */
const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);

/**
 * Follows one direction of the protocol: after the startup message everything is a type byte and a length, however the stream is cut into chunks.
 * Calls `message` with each type as soon as its header is complete.
 */
function createFraming(startup: boolean, message: (type: number) => void): (chunk: Uint8Array) => void {
  const header = new Uint8Array(5);
  const length = new DataView(header.buffer);
  let have = 0;
  let skip = 0;
  let untyped = startup;
  return (chunk) => {
    let at = 0;
    while (at < chunk.length) {
      if (skip > 0) {
        const step = Math.min(skip, chunk.length - at);
        skip -= step;
        at += step;
        continue;
      }
      if (untyped) {
        // The startup message has a length and no type.
        untyped = false;
        have = 1;
      }
      while (have < 5 && at < chunk.length) header[have++] = chunk[at++] ?? 0;
      if (have < 5) return;
      skip = length.getUint32(1) - 4;
      have = 0;
      message(header[0] ?? 0);
    }
  };
}

const code = (letter: string) => letter.charCodeAt(0);
const [sync, query, terminate, password, ready] = ["S", "Q", "X", "p", "Z"].map(code);
/** The server may speak unasked: NotificationResponse, ParameterStatus, NoticeResponse. */
const unasked = new Set(["A", "S", "N"].map(code));

/** How many ReadyForQuery the server owes: one for the startup, one for each simple query, one for each series of messages that ends (or will end) in a Sync. */
export function createLedger(): {
  readonly sent: (chunk: Uint8Array) => void;
  /** Says whether the server has answered something that it owed. */
  readonly received: (chunk: Uint8Array) => boolean;
  readonly owed: () => number;
} {
  let owed = 0;
  let series = false;
  let answering = false;
  let progress = false;
  const outgoing = createFraming(true, (type) => {
    if (type === terminate || type === password) return;
    if (!series) owed += 1;
    series = type !== sync && type !== query && type !== 0;
  });
  const incoming = createFraming(false, (type) => {
    if (type === ready) owed -= 1;
    if (!unasked.has(type)) progress = true;
    answering = !unasked.has(type) && type !== ready;
  });
  return {
    sent: outgoing,
    received: (chunk) => {
      // A chunk may hold nothing but the middle of a long row.
      progress = answering;
      incoming(chunk);
      return progress;
    },
    owed: () => owed,
  };
}

/**
 * Destroys the socket when the server has owed an answer for `deadlineMs` without sending any of it. postgres.js never times out on a half-open
 * connection; destroyed, it rejects what was in flight and connects anew. Answers are counted, because the driver sends the next statement before the last is answered.
 */
function watch(socket: Socket, deadlineMs: number): void {
  const ledger = createLedger();
  let overdue: ReturnType<typeof setTimeout> | undefined;
  const settle = () => {
    clearTimeout(overdue);
    overdue = undefined;
  };
  const expect = () => {
    clearTimeout(overdue);
    overdue = setTimeout(
      () =>
        socket.destroy(
          Object.assign(new Error(`Postgres has not answered for ${deadlineMs} ms`), { code: "ANSWER_TIMEOUT" }),
        ),
      deadlineMs,
    );
  };
  const write = socket.write.bind(socket);
  socket.write = ((...args: Parameters<typeof write>) => {
    const bytes: unknown = args[0];
    if (bytes instanceof Uint8Array) ledger.sent(bytes);
    if (ledger.owed() > 0 && overdue === undefined) expect();
    return write(...args);
  }) as typeof socket.write;
  socket.on("data", (chunk: Buffer) => {
    const progress = ledger.received(chunk);
    if (ledger.owed() <= 0) settle();
    else if (progress) expect();
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
    throw Object.assign(new Error("the server does not support TLS, but sslmode requires it"), { code: "TLS_REFUSED" });
  }
  const tls = connectTls({
    socket,
    host: address.host,
    // A name to be shown to the server is never an address (RFC 6066, 3).
    ...(isIP(address.host) === 0 ? { servername: address.host } : {}),
    ...(address.rootCertificates === undefined ? {} : { ca: address.rootCertificates }),
    ...address.client,
    ...(address.revocations === undefined ? {} : { crl: [...address.revocations] }),
    rejectUnauthorized: address.tls !== "unverified",
    ...(address.tls === "ca" ? { checkServerIdentity: () => undefined } : {}),
  });
  await until(tls, "secureConnect", timeoutMs);
  return tls;
}

/** Opens a connected, watched socket for postgres.js. `deadlineMs` bounds every answer, `connectMs` the connection itself. */
export async function openSocket(address: DatabaseAddress, connectMs: number, deadlineMs: number): Promise<Socket> {
  // Probes after 10 s of silence: a subscription owes us nothing, so only they notice that its peer is gone.
  const alive = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 10_000 };
  const plain =
    address.socketPath === undefined
      ? createConnection({ host: address.host, port: address.port, ...alive })
      : createConnection({ path: address.socketPath });
  await until(plain, "connect", connectMs);
  const socket =
    address.tls === "off" || address.socketPath !== undefined ? plain : await secure(plain, address, connectMs);
  watch(socket, deadlineMs);
  return socket;
}

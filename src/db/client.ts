import { drizzle, type PostgresJsDatabase } from "drizzle-orm/postgres-js";
import postgres from "postgres";
import type { DatabaseAddress } from "./address.ts";
import * as schema from "./schema.ts";
import { openSocket } from "./socket.ts";
import { inTurns, type OnStatement } from "./statements.ts";
import { subscribe } from "./subscription.ts";
import { openTurns } from "./turns.ts";

/** A pool of connections. Statements go through it one by one; what belongs together goes through `transaction`. */
export type Db = PostgresJsDatabase<typeof schema>;
/** An open transaction. A `Db` is not one: what must commit with the caller's writes takes a Tx. */
export type Tx = Parameters<Parameters<Db["transaction"]>[0]>[0];

export type DbOptions = {
  /** Connections at most. */
  readonly max: number;
  /** Shown in pg_stat_activity. */
  readonly applicationName: string;
  /** What the server may take for one statement, lock waits included; a second later the connection is dropped. */
  readonly statementTimeoutMs: number;
  /** Off behind a pooler in transaction mode. */
  readonly prepare: boolean;
  /** How long a statement or a transaction may wait for a free connection; then it fails as unavailable. Default: 5 s. */
  readonly poolTimeoutMs?: number;
  readonly onStatement?: OnStatement | undefined;
  /**
   * What a server that crashes may do with the last moments' commits. "kept" (the default) for everything that was acknowledged to a user. "redone" spares each commit its wait for the
   * disk (synchronous_commit = off): right for bookkeeping that is found undone and done again, in the order in which it was done.
   */
  readonly commits?: "kept" | "redone";
};

/** A pool at this moment. */
export type PoolState = {
  /** Connections at most. */
  readonly max: number;
  /** Statements and transactions under way: each has a connection, or has one opened. */
  readonly used: number;
  /** Open, idle connections. */
  readonly idle: number;
  /** Statements and transactions that wait for a connection. */
  readonly pending: number;
};

export type Database = {
  readonly db: Db;
  readonly address: DatabaseAddress;
  readonly state: () => PoolState;
  /** Calls `heard` for every NOTIFY on the channel, and once whenever the subscription is made: see `subscribe`. A silent connection is detected within `checkMs`, 15 s by default. */
  readonly listen: (channel: string, heard: () => void, checkMs?: number) => Promise<() => Promise<void>>;
  readonly close: () => Promise<void>;
};

const connectMs = 3000;
const graceMs = 1000;

/** Opens a pool. Connects on first use; never throws here. */
export function openDatabase(address: DatabaseAddress, options: DbOptions): Database {
  const turns = openTurns(options.max, options.poolTimeoutMs ?? 5000);
  let open = 0;
  const connect = () => openSocket(address, connectMs, options.statementTimeoutMs + graceMs);
  const connectPooled = async () => {
    const socket = await connect();
    open += 1;
    socket.once("close", () => {
      open -= 1;
    });
    return socket;
  };
  const settings = {
    host: address.host,
    port: address.port,
    database: address.database,
    user: address.user,
    pass: address.password ?? "",
    max: options.max,
    prepare: options.prepare,
    // The watched socket does what these would do: it times out, and it speaks TLS.
    socket: connect,
    ssl: false,
    connect_timeout: 2 * (connectMs / 1000),
    idle_timeout: 60,
    // A server that restarts is found again within half a second; the default waits up to 20 s.
    backoff: (attempts: number) => Math.min(0.5, 0.05 * attempts),
    onnotice: () => {},
    // Asked on every connect, by a promise that nobody waits for: the process would end when the server goes away just then. We pass no arrays that need it.
    fetch_types: false,
    connection: {
      application_name: options.applicationName,
      statement_timeout: options.statementTimeoutMs,
      idle_in_transaction_session_timeout: Math.max(options.statementTimeoutMs, 10_000),
      timezone: "UTC",
      // A queue is empty one moment and 200,000 rows long the next, and a prepared statement keeps the plan of the moment: planned for an empty table, a claim
      // reads and sorts all of it (measured: 13 s in place of 4 ms). What we look for always has an index; a full scan is still made where nothing else is possible.
      jit: "off",
      enable_seqscan: "off",
      enable_bitmapscan: "off",
      // Planning a settle anew took four times as long as settling one event: its plan is always the same one.
      plan_cache_mode: "force_generic_plan",
      ...(options.commits === "redone" ? { synchronous_commit: "off" } : {}),
      search_path: "public",
    },
  } as postgres.Options<Record<string, never>>;
  const client = postgres({ ...settings, socket: connectPooled } as postgres.Options<Record<string, never>>);
  const subscriptions = new Set<() => Promise<void>>();
  const db = drizzle(inTurns(client, turns, options), { schema });
  return {
    db,
    address,
    state: () => ({
      max: options.max,
      used: turns.used(),
      idle: Math.max(0, open - turns.used()),
      pending: turns.pending(),
    }),
    listen: async (channel, heard, checkMs = 15_000) => {
      const end = await subscribe(settings, channel, heard, checkMs);
      subscriptions.add(end);
      return async () => {
        subscriptions.delete(end);
        await end();
      };
    },
    close: async () => {
      await Promise.all([client.end({ timeout: 2 }), ...Array.from(subscriptions, (end) => end())]);
    },
  };
}

import postgres from "postgres";

/**
 * The users of one server hold a shared advisory lock, each on a connection that lives as long as they do. Who can
 * turn it into an exclusive lock on leaving is the last, and shuts the server down; nobody can join past that lock.
 * A killed process loses its lock with its connection, so its server ends with the next user that leaves in order.
 */
export interface Membership {
  readonly socketPath: string;
  /** Creates a database unless it exists; says whether it did. */
  createDatabase(name: string): Promise<boolean>;
  /**
   * Gives up the membership. "last": no other process uses the server, and none can join it until `close`.
   * "unanswered": the server said nothing within 2 s, or is gone.
   */
  leave(): Promise<"last" | "others" | "unanswered">;
  close(): Promise<void>;
}

/** Locks are per database and Wordloom's tables are in others: this number meets no other lock. */
const MEMBERS = 0x776c;

/** Until the server takes connections again: it recovers from a crash of one process within a moment. */
const rejoinMs = 100;

/** Joins the server behind a socket, or says why it refuses, as one does that starts up or shuts down. */
export async function joinServer(socketPath: string): Promise<{ membership: Membership } | { refusal: unknown }> {
  let member = false;
  const sql = postgres({
    path: socketPath,
    user: "postgres",
    database: "postgres",
    max: 1,
    // The lock lives on this connection: postgres.js would replace it after half an hour.
    max_lifetime: null,
    connect_timeout: 5,
    fetch_types: false,
    connection: { application_name: "wordloom member" },
    onnotice: () => {},
    // A server that loses one process ends all connections and goes on: whoever leaves then would be the last, and shut it down under the others.
    onclose: () => setTimeout(() => void rejoin(), rejoinMs).unref(),
  });
  async function rejoin(): Promise<void> {
    // What fails ends with a connection that is closed, and is tried again.
    if (member) await join().catch(() => undefined);
  }
  const join = () => sql`select pg_advisory_lock_shared(${MEMBERS})`;
  try {
    await join();
  } catch (refusal) {
    await sql.end({ timeout: 0 });
    return { refusal };
  }
  member = true;

  return {
    membership: {
      socketPath,
      async createDatabase(name) {
        const [found] = await sql`select from pg_database where datname = ${name}`;
        if (found) return false;
        try {
          await sql`create database ${sql(name)}`;
          return true;
        } catch (error) {
          // Created by another process since we looked (23505: at the very same time).
          if (error instanceof postgres.PostgresError && (error.code === "42P04" || error.code === "23505"))
            return false;
          throw error;
        }
      },
      async leave() {
        member = false;
        const asked = (async () => {
          await sql`select pg_advisory_unlock_shared(${MEMBERS})`;
          const [row] = await sql<{ last: boolean }[]>`select pg_try_advisory_lock(${MEMBERS}) as last`;
          return row?.last ? "last" : "others";
        })();
        const patience = AbortSignal.timeout(2000);
        return Promise.race([
          asked.catch(() => "unanswered" as const),
          new Promise<"unanswered">((resolve) => {
            patience.addEventListener("abort", () => resolve("unanswered"), { once: true });
          }),
        ]);
      },
      close() {
        member = false;
        return sql.end({ timeout: 0 });
      },
    },
  };
}

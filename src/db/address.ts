import { CommandError } from "../errors.ts";

/** Where a Postgres server is, read from a connection string. Either `socketPath` or `host` and `port` are used. */
export type DatabaseAddress = {
  readonly host: string;
  readonly port: number;
  readonly socketPath: string | undefined;
  readonly database: string;
  readonly user: string;
  readonly password: string | undefined;
  readonly tls: "off" | "unverified" | "verified";
};

const tlsModes: Record<string, DatabaseAddress["tls"]> = {
  disable: "off",
  allow: "off",
  prefer: "off",
  require: "unverified",
  "verify-ca": "verified",
  "verify-full": "verified",
};

/**
 * Reads `postgres://`, `postgresql://` and the `postgresql+psycopg://` of the forerunner. A unix socket is given as `?host=/folder`.
 * Throws a CommandError that never repeats the URL: it may hold a password.
 */
export function parseDatabaseUrl(text: string): DatabaseAddress {
  const bad = (what: string) =>
    new CommandError("usage", `DATABASE_URL ${what}; write it as postgresql://user:password@host:5432/database`);
  const match = /^postgres(?:ql)?(?:\+[a-z0-9]+)?:\/\/(.*)$/is.exec(text.trim());
  if (!match) throw bad("is not a Postgres URL");
  let url: URL;
  try {
    // A URL of a special scheme needs a host; a socket has none, so a placeholder stands in for it.
    url = new URL(`pg://${match[1]?.replace(/^((?:[^@/]*@)?)(?=\/|\?|$)/, "$1localhost")}`);
  } catch {
    throw bad("cannot be read");
  }
  const database = decodeURIComponent(url.pathname.slice(1));
  if (database === "") throw bad("names no database");
  const folder = url.searchParams.get("host");
  const port = url.port === "" ? 5432 : Number(url.port);
  const mode = url.searchParams.get("sslmode") ?? "prefer";
  const tls = tlsModes[mode];
  if (tls === undefined) throw bad(`has an unknown sslmode (known: ${Object.keys(tlsModes).join(", ")})`);
  return {
    host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port,
    socketPath: folder?.startsWith("/") ? `${folder}/.s.PGSQL.${port}` : undefined,
    database,
    user: url.username === "" ? (url.searchParams.get("user") ?? "postgres") : decodeURIComponent(url.username),
    password: url.password === "" ? undefined : decodeURIComponent(url.password),
    tls,
  };
}

/** The address for people and logs: no password. */
export function describeAddress(address: DatabaseAddress): string {
  const where = address.socketPath ?? `${address.host}:${address.port}`;
  return `database "${address.database}" at ${where} as "${address.user}"`;
}

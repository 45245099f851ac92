import { readFileSync } from "node:fs";
import { CommandError } from "../errors.ts";

/** Where a Postgres server is, read from a connection string. Either `socketPath` or `host` and `port` are used. */
export type DatabaseAddress = {
  readonly host: string;
  readonly port: number;
  readonly socketPath: string | undefined;
  readonly database: string;
  readonly user: string;
  readonly password: string | undefined;
  /** How far the server's certificate is checked: "ca" leaves out whose it is. */
  readonly tls: "off" | "unverified" | "ca" | "full";
  /** The certificates to trust, as PEM, in place of those that this build trusts. */
  readonly rootCertificates?: string;
};

const tlsModes: Record<string, DatabaseAddress["tls"]> = {
  disable: "off",
  allow: "off",
  prefer: "off",
  require: "unverified",
  "verify-ca": "ca",
  "verify-full": "full",
};

/**
 * sslmode and sslrootcert as libpq reads them (PostgreSQL 18, 34.19.1): a root certificate makes `require` mean verify-ca, and `system` wants verify-full. Without one
 * libpq refuses to verify; here the public authorities are trusted, and then the name is always checked: anybody can have a certificate of theirs.
 */
function readTls(
  parameters: URLSearchParams,
  bad: (what: string) => CommandError,
): Pick<DatabaseAddress, "tls" | "rootCertificates"> {
  const tls = tlsModes[parameters.get("sslmode") ?? "prefer"];
  if (tls === undefined) throw bad(`has an unknown sslmode (known: ${Object.keys(tlsModes).join(", ")})`);
  const file = parameters.get("sslrootcert") ?? "";
  if (file === "system" && tls !== "full") throw bad("has sslrootcert=system, which wants sslmode=verify-full");
  if (file === "" || file === "system") return { tls: tls === "ca" ? "full" : tls };
  if (tls === "off") return { tls };
  let rootCertificates: string;
  try {
    rootCertificates = readFileSync(file, "utf8");
  } catch (error) {
    const code: unknown = error instanceof Error && "code" in error ? error.code : "unreadable";
    throw bad(`names an sslrootcert that cannot be read (${String(code)})`);
  }
  if (!rootCertificates.includes("-----BEGIN CERTIFICATE-----"))
    throw bad("names an sslrootcert that holds no certificate (PEM)");
  return { tls: tls === "unverified" ? "ca" : tls, rootCertificates };
}

/**
 * Reads `postgres://`, `postgresql://` and the `postgresql+psycopg://` of the forerunner. A unix socket is given as `?host=/folder`.
 * Throws a CommandError that never repeats the URL: it may hold a password.
 */
export function parseDatabaseUrl(text: string): DatabaseAddress {
  const bad = (what: string) =>
    new CommandError("usage", `DATABASE_URL ${what}; write it as postgresql://user:password@host:5432/database`);
  const match = /^postgres(?:ql)?(?:\+[a-z0-9]+)?:\/\/(.*)$/is.exec(text.trim());
  if (!match) throw bad("is not a Postgres URL");
  const read = () => {
    // A URL of a special scheme needs a host; a socket has none, so a placeholder stands in for it.
    const url = new URL(`pg://${match[1]?.replace(/^((?:[^@/]*@)?)(?=\/|\?|$)/, "$1localhost")}`);
    const [database = "", user = "", password = ""] = [url.pathname.slice(1), url.username, url.password].map((part) =>
      decodeURIComponent(part),
    );
    return { url, database, user, password };
  };
  let parts: ReturnType<typeof read>;
  try {
    parts = read();
  } catch {
    throw bad("cannot be read");
  }
  const { url, database, user, password } = parts;
  // A password such as 1/x@ is cut there, and the rest would be told as the name of the database.
  if (/[/@]/.test(url.pathname.slice(1))) throw bad("has a / or @ where it must be %2F or %40");
  if (database === "") throw bad("names no database");
  const folder = url.searchParams.get("host");
  const port = url.port === "" ? 5432 : Number(url.port);
  return {
    host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port,
    socketPath: folder?.startsWith("/") ? `${folder}/.s.PGSQL.${port}` : undefined,
    database,
    user: user === "" ? (url.searchParams.get("user") ?? "postgres") : user,
    password: password === "" ? undefined : password,
    ...readTls(url.searchParams, bad),
  };
}

/** The address for people and logs: no password. */
export function describeAddress(address: DatabaseAddress): string {
  const where = address.socketPath ?? `${address.host}:${address.port}`;
  return `database "${address.database}" at ${where} as "${address.user}"`;
}

import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { CommandError, codeOf } from "../errors.ts";

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
  /** Who we are for a server that asks for a certificate: the chain and its key, as PEM. */
  readonly client?: { readonly cert: string; readonly key: string };
  /** The lists of what the authorities have revoked, each as PEM. */
  readonly revocations?: readonly string[];
};

const tlsModes: Record<string, DatabaseAddress["tls"]> = {
  disable: "off",
  allow: "off",
  prefer: "off",
  require: "unverified",
  "verify-ca": "ca",
  "verify-full": "full",
};

type Tls = Pick<DatabaseAddress, "tls" | "rootCertificates" | "client" | "revocations">;
type Bad = (what: string) => CommandError;

const certificate = { header: /-----BEGIN CERTIFICATE-----/, what: "certificate" };
/** The parameters that name a file, and what must be in it as PEM. */
const files = {
  sslrootcert: certificate,
  sslcert: certificate,
  sslkey: { header: /-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----/, what: "private key" },
  sslcrl: { header: /-----BEGIN X509 CRL-----/, what: "revocation list" },
};

/** What is in the file that a parameter names; undefined where the parameter is absent or empty. */
function readPem(parameters: URLSearchParams, name: keyof typeof files, bad: Bad): string | undefined {
  const file = parameters.get(name) ?? "";
  if (file === "") return undefined;
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw bad(`names an ${name} that cannot be read (${whyOf(error)})`);
  }
  const { header, what } = files[name];
  if (!header.test(text)) throw bad(`names an ${name} that contains no ${what} (PEM)`);
  return text;
}

const whyOf = (error: unknown) => codeOf(error) ?? "unreadable";

/**
 * What says where to connect, as what, or how safely, but cannot be given here: the parameter, the values of it that hold by themselves, and what to do. To pass over it would
 * be to lie.
 */
const demands: readonly (readonly [name: string, met: readonly string[], remedy: string])[] = [
  ["hostaddr", [], "write the address as the host"],
  ["service", [], "write out what pg_service.conf says of it"],
  ["passfile", [], "write the password into the URL"],
  ["options", [], "set them for the role, with ALTER ROLE … SET"],
  ["target_session_attrs", ["any"], "name the server that takes writes"],
  ["sslcrldir", [], "put its lists into one file and name that with sslcrl"],
  ["sslpassword", [], "take the password off the key that sslkey names"],
  ["channel_binding", ["disable", "prefer"], "write prefer, or leave it out"],
  ["require_auth", [], "leave it out, and let the server's pg_hba.conf ask for it"],
  ["ssl_min_protocol_version", ["TLSv1", "TLSv1.1", "TLSv1.2"], "TLSv1.2 is the least, ask the server for more"],
  ["ssl_max_protocol_version", ["TLSv1.3"], "leave it out"],
];

function refuseDemands(parameters: URLSearchParams, bad: Bad): void {
  for (const [name, met, remedy] of demands) {
    const value = parameters.get(name) ?? "";
    if (value !== "" && !met.includes(value)) throw bad(`has ${name}, which is not supported: ${remedy}`);
  }
}

/**
 * sslmode, sslrootcert, sslcert, sslkey and sslcrl as libpq reads them (PostgreSQL 18, 34.19): a root certificate makes `require` mean verify-ca, and `system` wants
 * verify-full. Without one libpq refuses to verify; here the public authorities are trusted, and then the name is always checked: anybody can have a certificate of theirs.
 * Where libpq would pass over a certificate or a list that the rest of the URL gives no use to, it is refused. Nothing is looked for in ~/.postgresql.
 */
function readTls(parameters: URLSearchParams, bad: Bad): Tls {
  const verified = readVerification(parameters, bad);
  const client = readClient(parameters, verified.tls, bad);
  const revocations = readRevocations(parameters, verified, bad);
  return { ...verified, ...(client ? { client } : {}), ...(revocations ? { revocations } : {}) };
}

function readVerification(parameters: URLSearchParams, bad: Bad): Pick<Tls, "tls" | "rootCertificates"> {
  const tls = tlsModes[parameters.get("sslmode") ?? "prefer"];
  if (tls === undefined) throw bad(`has an unknown sslmode (known: ${Object.keys(tlsModes).join(", ")})`);
  const file = parameters.get("sslrootcert") ?? "";
  if (file === "system" && tls !== "full") throw bad("has sslrootcert=system, which requires sslmode=verify-full");
  if (file === "system" || tls === "off") return { tls };
  const rootCertificates = readPem(parameters, "sslrootcert", bad);
  if (rootCertificates === undefined) return { tls: tls === "ca" ? "full" : tls };
  return { tls: tls === "unverified" ? "ca" : tls, rootCertificates };
}

function readClient(parameters: URLSearchParams, tls: Tls["tls"], bad: Bad): Tls["client"] {
  const cert = readPem(parameters, "sslcert", bad);
  const key = readPem(parameters, "sslkey", bad);
  if (cert === undefined && key === undefined) return undefined;
  if (key === undefined) throw bad("has sslcert without sslkey");
  if (cert === undefined) throw bad("has sslkey without sslcert");
  if (tls === "off") throw bad("has sslcert, which requires sslmode=require, verify-ca or verify-full");
  try {
    createSecureContext({ cert, key });
  } catch (error) {
    throw bad(
      `names an sslcert and an sslkey that cannot be used together, or a key with a password (${whyOf(error)})`,
    );
  }
  return { cert, key };
}

function readRevocations(parameters: URLSearchParams, verified: Tls, bad: Bad): Tls["revocations"] {
  const text = readPem(parameters, "sslcrl", bad);
  if (text === undefined) return undefined;
  // Of several lists in one text the TLS library takes the first alone.
  const lists = text.split(/(?=-----BEGIN )/).filter((block) => files.sslcrl.header.test(block));
  if (verified.rootCertificates === undefined)
    throw bad("has sslcrl, which requires an sslrootcert, with sslmode=require, verify-ca or verify-full");
  try {
    createSecureContext({ crl: lists });
  } catch (error) {
    throw bad(`names an sslcrl that cannot be read as revocation lists (${whyOf(error)})`);
  }
  return lists;
}

/**
 * Reads `postgres://`, `postgresql://` and the `postgresql+psycopg://` of the forerunner. As with libpq the parameters host, port, dbname, user and password win over what
 * stands before them; a host that begins with / is the folder of a unix socket.
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
  const { url, ...before } = parts;
  refuseDemands(url.searchParams, bad);
  const given = (name: string, otherwise: string) => url.searchParams.get(name) || otherwise;
  // A password such as 1/x@ is cut there, and the rest would be shown as the name of the database.
  if (/[/@]/.test(url.pathname.slice(1))) throw bad("has a / or @ where it must be %2F or %40");
  const database = given("dbname", before.database);
  if (database === "") throw bad("names no database");
  const host = given("host", url.hostname.replace(/^\[(.*)\]$/, "$1"));
  const port = given("port", url.port || "5432");
  if (!/^\d{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65_535) throw bad("has an invalid port");
  const password = given("password", before.password);
  const folder = host.startsWith("/");
  return {
    host: folder ? url.hostname : host,
    port: Number(port),
    socketPath: folder ? `${host}/.s.PGSQL.${port}` : undefined,
    database,
    user: given("user", before.user) || "postgres",
    password: password === "" ? undefined : password,
    ...readTls(url.searchParams, bad),
  };
}

/** The address for people and logs: no password. */
export function describeAddress(address: DatabaseAddress): string {
  const where = address.socketPath ?? `${address.host}:${address.port}`;
  return `database "${address.database}" at ${where} as "${address.user}"`;
}

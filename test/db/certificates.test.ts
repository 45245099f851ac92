import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { parseDatabaseUrl } from "../../src/db/address.ts";
import { openDatabase } from "../../src/db/client.ts";
import { databaseErrorCode, explainDatabaseError, isUntrusted } from "../../src/db/failure.ts";
import { give } from "../../src/embedded/postgres/account.ts";
import { prepareFolders } from "../../src/embedded/postgres/folders.ts";
import { readPostmaster } from "../../src/embedded/postgres/postmaster.ts";
import { freePort } from "../support/cli.ts";
import { rejection } from "../support/library.ts";
import { until } from "../support/until.ts";

/**
 * A PostgreSQL that speaks TLS and lets in nobody without a certificate of its authority. The fixtures: that authority (whose key is thrown away), what it gave the server
 * (localhost) and the user "postgres", its list without an entry and its list with the server; and a stranger's certificate that vouches for itself.
 */
const fixture = (name: string) => join(import.meta.dir, "fixtures", name);
const port = freePort();
const folder = await mkdtemp(join(tmpdir(), "wordloom-certificates-"));
let server: Bun.Subprocess | undefined;

beforeAll(async () => {
  // As root the server runs as another user, who must be able to enter.
  await chmod(folder, 0o755);
  const { folders, account } = await prepareFolders(folder);
  const tls = join(folder, "tls");
  await mkdir(tls, { mode: 0o700 });
  for (const name of ["authority.pem", "server.pem"]) await copyFile(fixture(name), join(tls, name));
  await chmod(join(tls, "server.pem"), 0o600);
  await Bun.write(join(tls, "hba.conf"), "hostssl all all 127.0.0.1/32 cert\n");
  await give(tls, account);
  const settings = {
    listen_addresses: "127.0.0.1",
    port,
    unix_socket_directories: folders.socketDir,
    fsync: "off",
    hba_file: join(tls, "hba.conf"),
    ssl: "on",
    ssl_ca_file: join(tls, "authority.pem"),
    ssl_cert_file: join(tls, "server.pem"),
    ssl_key_file: join(tls, "server.pem"),
  };
  const given = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  server = Bun.spawn([join(folders.server, "bin/postgres"), "-D", folders.cluster, ...given], {
    ...account.switch,
    cwd: folders.cluster,
    env: { LC_ALL: "C" },
    stdio: ["ignore", "ignore", "ignore"],
  });
  await until("PostgreSQL is ready", async () => (await readPostmaster(folders.cluster))?.ready);
}, 60_000);

afterAll(async () => {
  server?.kill("SIGINT");
  await server?.exited;
  await rm(folder, { recursive: true });
});

const parameter = (name: string, file: string) => `${name}=${encodeURIComponent(fixture(file))}`;
const trusting = `sslmode=verify-full&${parameter("sslrootcert", "authority.pem")}`;
const ours = `${parameter("sslcert", "client.pem")}&${parameter("sslkey", "client.key")}`;

const addressOf = (parameters: string) =>
  parseDatabaseUrl(`postgres://postgres@localhost:${port}/postgres?${parameters}`);

/** Who the server says we are. */
async function ask(parameters: string) {
  const pool = openDatabase(addressOf(parameters), {
    max: 1,
    applicationName: "certificates",
    statementTimeoutMs: 5000,
    prepare: true,
  });
  try {
    return await pool.db.execute(sql`select client_dn from pg_stat_ssl where pid = pg_backend_pid()`);
  } finally {
    await pool.close();
  }
}

test("sslcert and sslkey are shown to a server that asks for them", async () => {
  expect(await ask(`${trusting}&${ours}`)).toMatchObject([{ client_dn: "/CN=postgres" }]);
  expect(await ask(`sslmode=require&${ours}`)).toMatchObject([{ client_dn: "/CN=postgres" }]);
});

test("that server lets in nobody without them, and nobody with a stranger's", async () => {
  expect(databaseErrorCode(await rejection(ask(trusting)))).toBe("28000");
  const strange = `${parameter("sslcert", "localhost.pem")}&${parameter("sslkey", "localhost.pem")}`;
  // The server breaks off with an alert, which gets lost where its end of the connection is gone before we read it.
  const code = databaseErrorCode(await rejection(ask(`${trusting}&${strange}`)));
  expect(code).toMatch(/_ALERT_|ECONNRESET|EPIPE|CONNECTION_CLOSED/);
});

test.each([
  ["ERR_SSL_TLSV1_ALERT_UNKNOWN_CA", "correct sslcert and sslkey"],
  ["ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", "correct sslcert and sslkey"],
  ["UNABLE_TO_GET_CRL", "the lists in sslcrl"],
  ["CRL_HAS_EXPIRED", "the lists in sslcrl"],
])("people are told which parameter %s is about", (code, what) => {
  const failure = Object.assign(new Error("no words of its own"), { code });
  expect(explainDatabaseError(addressOf(trusting), failure)).toContain(what);
  expect(isUntrusted(code)).toBe(true);
});

test("a server that sslcrl names is not spoken to; one that it does not name is", async () => {
  const clear = parameter("sslcrl", "nothing-revoked.crl");
  expect(await ask(`${trusting}&${ours}&${clear}`)).toHaveLength(1);
  const revoked = await rejection(ask(`${trusting}&${ours}&${parameter("sslcrl", "server-revoked.crl")}`));
  expect(databaseErrorCode(revoked)).toBe("CERT_REVOKED");
  expect(explainDatabaseError(addressOf(trusting), revoked)).toContain("revoked");
});

test("every list of an sslcrl counts, whatever stands between them", async () => {
  const path = join(folder, "lists.crl");
  const names = ["authority.pem", "nothing-revoked.crl", "server-revoked.crl"];
  const [authority = "", clear = "", revoked = ""] = await Promise.all(
    names.map((name) => readFile(fixture(name), "utf8")),
  );
  await Bun.write(path, `of 2026\n${clear}\n${authority}\n${revoked}`);
  const { revocations = [] } = addressOf(`${trusting}&sslcrl=${encodeURIComponent(path)}`);
  expect(revocations.map((list) => list.trim())).toEqual([clear.trim(), revoked.trim()]);
});

const unusable = (name: string, text: string) => {
  const path = join(folder, name);
  return Bun.write(path, text).then(() => encodeURIComponent(path));
};
const junk = {
  certificate: await unusable("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
  list: await unusable("junk.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
  cut: await unusable("cut.crl", "-----BEGIN X509 CRL-----\nAAAA\n"),
};

test.each([
  ["has sslcert without sslkey", `${trusting}&${parameter("sslcert", "client.pem")}`],
  ["has sslkey without sslcert", `${trusting}&${parameter("sslkey", "client.key")}`],
  ["has sslcert, which requires sslmode=require", ours],
  ["has sslcert, which requires sslmode=require", `sslmode=disable&${ours}`],
  ["names an sslcert that cannot be read (ENOENT)", `${trusting}&sslcert=/nowhere/s3cret.pem`],
  ["names an sslcert that contains no certificate", `${trusting}&${parameter("sslcert", "client.key")}`],
  [
    "names an sslkey that contains no private key",
    `${trusting}&${parameter("sslcert", "client.pem")}&${parameter("sslkey", "client.pem")}`,
  ],
  [
    "names an sslcert and an sslkey that cannot be used together",
    `${trusting}&${parameter("sslcert", "client.pem")}&${parameter("sslkey", "server.pem")}`,
  ],
  ["cannot be used together", `${trusting}&sslcert=${junk.certificate}&${parameter("sslkey", "client.key")}`],
  ["has sslcrl, which requires an sslrootcert", `sslmode=require&${parameter("sslcrl", "nothing-revoked.crl")}`],
  [
    "has sslcrl, which requires an sslrootcert",
    `sslmode=verify-full&sslrootcert=system&${parameter("sslcrl", "nothing-revoked.crl")}`,
  ],
  ["has sslcrl, which requires an sslrootcert", parameter("sslcrl", "nothing-revoked.crl")],
  ["names an sslcrl that contains no revocation list", `${trusting}&${parameter("sslcrl", "authority.pem")}`],
  ["names an sslcrl that cannot be read as revocation lists", `${trusting}&sslcrl=${junk.list}`],
  ["names an sslcrl that cannot be read as revocation lists", `${trusting}&sslcrl=${junk.cut}`],
  ["has sslcrldir, which is not supported", `${trusting}&sslcrldir=/nowhere/s3cret`],
  ["has sslpassword, which is not supported", `${trusting}&sslpassword=s3cret`],
  ["has channel_binding, which is not supported", `${trusting}&channel_binding=require`],
  ["has require_auth, which is not supported", "require_auth=scram-sha-256"],
  ["has ssl_min_protocol_version, which is not supported", `${trusting}&ssl_min_protocol_version=TLSv1.3`],
  ["has ssl_max_protocol_version, which is not supported", `${trusting}&ssl_max_protocol_version=TLSv1.2`],
])(
  "what would have no effect, or not the one that is meant, is refused before anybody connects: %# %s",
  (why, parameters) => {
    let said = "";
    try {
      parseDatabaseUrl(`postgres://u:s3cret@h/d?${parameters}`);
    } catch (error) {
      said = String(error);
    }
    expect(said).toContain(why);
    expect(said).not.toMatch(/s3cret|fixtures|certificates-/);
  },
);

test.each(["channel_binding=prefer", "channel_binding=disable", "ssl_min_protocol_version=TLSv1.2", "require_auth="])(
  "what holds by itself is taken: %s",
  (parameters) =>
    expect(parseDatabaseUrl(`postgres://u@h/d?${parameters}`)).toMatchObject({ host: "h", database: "d" }),
);

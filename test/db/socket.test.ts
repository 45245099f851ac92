import { afterAll, describe, expect, test } from "bun:test";
import { readFile, rm } from "node:fs/promises";
import { type AddressInfo, createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTlsServer, rootCertificates } from "node:tls";
import { sql } from "drizzle-orm";
import fc from "fast-check";
import { parseDatabaseUrl } from "../../src/db/address.ts";
import { openDatabase } from "../../src/db/client.ts";
import { databaseErrorCode, explainDatabaseError } from "../../src/db/failure.ts";
import { createLedger } from "../../src/db/socket.ts";
import { rejection } from "../support/library.ts";
import { testDatabase } from "../support/postgres.ts";

describe("the ledger of what the server owes", () => {
  const message = (type: string, body: Uint8Array) => {
    const header = Buffer.from(`${type}0000`);
    header.writeUInt32BE(body.length + 4, 1);
    return Buffer.concat([header, body]);
  };
  const startup = Buffer.concat([Buffer.from([0, 0, 0, 13, 0, 3, 0, 0]), Buffer.from("user\0")]);
  const body = fc.uint8Array({ maxLength: 40 });
  /** Cuts bytes wherever the numbers say. */
  const cut = (bytes: Buffer, places: readonly number[]) => {
    const at = [0, ...places.map((p) => p % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b);
    return at.slice(1).map((end, i) => bytes.subarray(at[i], end));
  };
  /** A query is a simple one or a series that ends in a Sync; its answer holds one ReadyForQuery. */
  const query = fc.oneof(
    body.map((b) => message("Q", b)),
    fc
      .array(fc.tuple(fc.constantFrom("P", "B", "D", "E", "H", "C"), body), { minLength: 1, maxLength: 5 })
      .map((ms) => Buffer.concat([...ms.map(([t, b]) => message(t, b)), message("S", Buffer.alloc(0))])),
  );
  const answer = fc
    .array(fc.tuple(fc.constantFrom("1", "2", "D", "T", "C", "A", "N", "E"), body), { maxLength: 6 })
    .map((ms) => Buffer.concat([...ms.map(([t, b]) => message(t, b)), message("Z", Buffer.from("I"))]));

  test("counts one answer for each query, however the bytes are cut, whatever they hold", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ query, answer }), { maxLength: 8 }),
        fc.nat({ max: 8 }),
        fc.array(fc.nat(), { maxLength: 30 }),
        (talk, answered, places) => {
          const ledger = createLedger();
          for (const chunk of cut(Buffer.concat([startup, ...talk.map((t) => t.query)]), places)) ledger.sent(chunk);
          expect(ledger.owed()).toBe(1 + talk.length);
          const said = [
            message("R", Buffer.alloc(4)),
            message("Z", Buffer.from("I")),
            ...talk.slice(0, answered).map((t) => t.answer),
          ];
          for (const chunk of cut(Buffer.concat(said), places)) ledger.received(chunk);
          expect(ledger.owed()).toBe(talk.length - Math.min(answered, talk.length));
        },
      ),
      { numRuns: 500 },
    );
  });

  test("a notice is no answer, and the middle of a long row is one", () => {
    const ledger = createLedger();
    ledger.sent(startup);
    expect(ledger.received(message("N", Buffer.alloc(20)))).toBe(false);
    const row = message("D", Buffer.alloc(1000));
    expect(ledger.received(row.subarray(0, 500))).toBe(true);
    expect(ledger.received(row.subarray(500, 600))).toBe(true);
    expect(ledger.received(row.subarray(600))).toBe(true);
  });
});

describe("TLS", async () => {
  const database = await testDatabase();
  // Key and certificate in one file: the gate must not need an openssl on the machine.
  const pem = await readFile(join(import.meta.dir, "fixtures/localhost.pem"));
  const upstream = () => {
    const { socketPath, host, port } = database.address;
    return socketPath === undefined ? createConnection({ host, port }) : createConnection({ path: socketPath });
  };
  // The TLS half decrypts for the real server; the front answers the SSLRequest and hands the rest on.
  const inner = createTlsServer({ key: pem, cert: pem }, (socket) => {
    const far = upstream();
    socket
      .on("error", () => far.destroy())
      .pipe(far)
      .on("error", () => socket.destroy())
      .pipe(socket);
  });
  let answers: "S" | "N" | "silence" = "S";
  const requests: string[] = [];
  const front = createServer((near) => {
    near.on("error", () => near.destroy());
    near.once("data", (request) => {
      requests.push(request.toString("hex"));
      if (answers === "silence") return;
      near.write(answers);
      if (answers === "N") return;
      const far = createConnection({ host: "127.0.0.1", port: (inner.address() as AddressInfo).port });
      near
        .pipe(far)
        .on("error", () => near.destroy())
        .pipe(near);
    });
  });
  for (const server of [inner, front]) await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  afterAll(async () => {
    front.close();
    inner.close();
  });

  /** Asks with the parameters of a DATABASE_URL. */
  const ask = async (parameters: string, host = "127.0.0.1") => {
    const { port } = front.address() as AddressInfo;
    const url = `postgres://${host}:${port}/${database.address.database}?${parameters}`;
    const address = { ...parseDatabaseUrl(url), user: database.address.user, password: database.address.password };
    const pool = openDatabase(address, { max: 1, applicationName: "tls", statementTimeoutMs: 5000, prepare: true });
    try {
      return await pool.db.execute<{ n: number }>(sql`select 1 as n`);
    } finally {
      await pool.close();
    }
  };

  test("require encrypts and takes any certificate", async () => {
    answers = "S";
    expect(await ask("sslmode=require")).toMatchObject([{ n: 1 }]);
    expect(requests.at(-1)).toBe("0000000804d2162f");
  });

  test("verify-full refuses a certificate that nobody vouches for", async () => {
    answers = "S";
    expect(databaseErrorCode(await rejection(ask("sslmode=verify-full", "localhost")))).toMatch(/CERT|SELF_SIGNED/);
  });

  const own = `sslrootcert=${encodeURIComponent(join(import.meta.dir, "fixtures/localhost.pem"))}`;

  test("with sslrootcert verify-full takes the certificate of that authority, and only for the name that is in it", async () => {
    answers = "S";
    expect(await ask(`sslmode=verify-full&${own}`, "localhost")).toMatchObject([{ n: 1 }]);
    expect(databaseErrorCode(await rejection(ask(`sslmode=verify-full&${own}`)))).toBe("ERR_TLS_CERT_ALTNAME_INVALID");
  });

  test.each(["verify-ca", "require"])("with sslrootcert %s checks the authority and not the name", async (mode) => {
    answers = "S";
    expect(await ask(`sslmode=${mode}&${own}`)).toMatchObject([{ n: 1 }]);
    const other = join(tmpdir(), `wordloom-authority-${process.pid}.pem`);
    await Bun.write(other, rootCertificates[0] ?? "");
    const refused = await rejection(ask(`sslmode=${mode}&sslrootcert=${encodeURIComponent(other)}`));
    await rm(other);
    expect(databaseErrorCode(refused)).toMatch(/SELF_SIGNED|UNABLE_TO/);
    expect(explainDatabaseError(database.address, refused)).toContain("sslrootcert");
  });

  test("without sslrootcert verify-ca checks the name too: the public authorities vouch for anybody", () => {
    expect(parseDatabaseUrl("postgres://h/d?sslmode=verify-ca").tls).toBe("full");
  });

  test.each([
    ["sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "cannot be read (ENOENT)"],
    [`sslmode=verify-full&sslrootcert=${encodeURIComponent(import.meta.path)}`, "contains no certificate"],
    ["sslmode=verify-ca&sslrootcert=system", "requires sslmode=verify-full"],
    ["sslmode=sometimes", "unknown sslmode"],
  ])("what cannot be checked is refused before anybody connects: %s", (parameters, why) => {
    expect(() => parseDatabaseUrl(`postgres://u:s3cret@h/d?${parameters}`)).toThrow(why);
  });

  test.each([
    [
      "postgresql:///d?host=db.internal&port=6432",
      { host: "db.internal", port: 6432, database: "d", user: "postgres" },
    ],
    ["postgresql://u:p@h:5433/d?host=other", { host: "other", port: 5433, user: "u", password: "p" }],
    [
      "postgresql://u:p@h/d?port=6432&dbname=e&user=v&password=q",
      { host: "h", port: 6432, database: "e", user: "v", password: "q" },
    ],
    ["postgresql:///d?host=/run/pg&port=6432", { socketPath: "/run/pg/.s.PGSQL.6432", port: 6432 }],
    ["postgresql://[::1]/d", { host: "::1", port: 5432, socketPath: undefined }],
  ])("parameters win over what stands before them, as with libpq: %s", (url, address) => {
    expect(parseDatabaseUrl(url)).toMatchObject(address);
  });

  test.each([
    ["port=0", "has an invalid port"],
    ["port=65536", "has an invalid port"],
    ["port=5432,5433", "has an invalid port"],
    ["service=prod", "has service, which is not supported"],
    ["options=-csearch_path%3Dother", "has options, which is not supported"],
    ["hostaddr=10.0.0.1", "has hostaddr, which is not supported"],
    ["target_session_attrs=read-write", "has target_session_attrs, which is not supported"],
  ])("what would lead elsewhere is refused: %s", (parameters, why) => {
    expect(() => parseDatabaseUrl(`postgres://u:s3cret@h/d?${parameters}`)).toThrow(why);
  });

  test("a server without TLS is refused where TLS is asked for, before anything is told", async () => {
    answers = "N";
    expect(databaseErrorCode(await rejection(ask("sslmode=require")))).toBe("TLS_REFUSED");
  });

  test("a server that never answers the question is given up", async () => {
    answers = "silence";
    expect(databaseErrorCode(await rejection(ask("sslmode=require")))).toBe("CONNECT_TIMEOUT");
  });
});

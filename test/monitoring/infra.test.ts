import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { parseDatabaseUrl } from "../../src/db/address.ts";
import { type Database, openDatabase } from "../../src/db/client.ts";
import { checkSentinel } from "../../src/db/guard.ts";
import { migrate, migrations } from "../../src/db/migrate.ts";
import { rejection } from "../support/library.ts";
import { blocks, read } from "../support/monitoring.ts";
import { testDatabase } from "../support/postgres.ts";

type Service = {
  readonly image: string;
  readonly profiles?: readonly string[];
  readonly ports?: readonly string[];
  readonly volumes?: readonly string[];
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly extra_hosts?: readonly string[];
  readonly healthcheck?: { readonly test: readonly string[] };
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
};

const root = join(import.meta.dir, "../..");
const compose = Bun.YAML.parse(read("docker-compose.infra.yml")) as {
  services: Record<string, Service>;
  volumes: Record<string, unknown>;
};
const services = Object.entries(compose.services);

test("the servers of the operator documents are there, on their ports and on this machine alone", () => {
  expect(Object.fromEntries(services.map(([name, service]) => [name, service.ports]))).toEqual({
    postgres: ["127.0.0.1:5435:5432"],
    es: ["127.0.0.1:9200:9200"],
    jaeger: ["127.0.0.1:16686:16686", "127.0.0.1:4317:4317", "127.0.0.1:4318:4318"],
    prometheus: ["127.0.0.1:9090:9090"],
    grafana: ["127.0.0.1:3000:3000"],
  });
  for (const [name, service] of services)
    expect(service.profiles ?? [], name).toEqual(["prometheus", "grafana"].includes(name) ? ["monitoring"] : []);
});

test("every image has an exact version, every server a health check, every mount its source", () => {
  for (const [name, service] of services) {
    expect(service.image, name).toMatch(/:v?\d+\.\d+(\.\d+)?$/);
    expect(service.healthcheck?.test[0] ?? "", name).toStartWith("CMD");
    for (const volume of service.volumes ?? []) {
      const [source = "", target = ""] = volume.split(":");
      expect(target, volume).toStartWith("/");
      if (source.startsWith("./")) {
        expect(existsSync(join(root, source)), source).toBe(true);
        expect(volume, "a file of the repository is not the container's to write").toEndWith(":ro");
      } else expect(Object.keys(compose.volumes), volume).toContain(source);
    }
    for (const [other, { condition }] of Object.entries(service.depends_on ?? {})) {
      expect(Object.keys(compose.services)).toContain(other);
      expect(condition).toBe("service_healthy");
    }
  }
});

test("Prometheus reloads on request, keeps exemplars and finds the host; Grafana alone has admin/admin", () => {
  const { prometheus, grafana } = compose.services;
  expect(prometheus?.command).toContain("--web.enable-lifecycle");
  expect(prometheus?.command).toContain("--enable-feature=exemplar-storage");
  expect(prometheus?.extra_hosts).toEqual(["host.docker.internal:host-gateway"]);
  expect(grafana?.environment?.["GF_SECURITY_ADMIN_USER"]).toBe("admin");
  expect(grafana?.environment?.["GF_SECURITY_ADMIN_PASSWORD"]).toBe("admin");
  expect(read("docker-compose.infra.yml").match(/PASSWORD: admin/g)).toHaveLength(1);
});

const { success: composeAtHand } = Bun.which("docker")
  ? Bun.spawnSync(["docker", "compose", "version"], { stdio: ["ignore", "ignore", "ignore"] })
  : { success: false };
if (!composeAtHand) process.stderr.write("no `docker compose`: `docker compose config` was not run\n");
else
  test("docker compose accepts the file", () => {
    const run = Bun.spawnSync(
      ["docker", "compose", "-f", "docker-compose.infra.yml", "--profile", "monitoring", "config", "--quiet"],
      { cwd: root },
    );
    expect(run.exitCode, run.stderr.toString()).toBe(0);
  });

const database = await testDatabase();

/** Runs docker/postgres/init.sql as psql does, with the databases named `names`; returns a connection to each. */
async function initialise(admin: Database, names: Readonly<Record<string, string>>): Promise<Record<string, Database>> {
  const opened: Record<string, Database> = {};
  let current = admin;
  const lines = read("docker/postgres/init.sql").replaceAll(/^--.*$/gm, "");
  for (const line of lines.split("\n").map((text) => text.trim())) {
    const [, meta, argument = ""] = /^\\(connect|i) (\S+)$/.exec(line) ?? [];
    if (meta === "connect") {
      const url = database.url.replace(database.name, names[argument] ?? "");
      current = openDatabase(parseDatabaseUrl(url), {
        max: 1,
        applicationName: "test",
        statementTimeoutMs: 10_000,
        prepare: true,
      });
      opened[argument] = current;
    } else if (meta === "i") {
      const mount = compose.services["postgres"]?.volumes?.find((volume) => volume.includes(`:${argument}:`));
      await current.db.execute(sql.raw(read(mount?.split(":")[0] ?? "")));
    } else if (line !== "") {
      const renamed = line.replaceAll(/wordloom_(dev|test)\b/g, (name) => names[name] ?? name);
      await current.db.execute(sql.raw(renamed));
    }
  }
  return opened;
}

test("the databases have their sentinels before the first migration, and migrate as new ones do", async () => {
  const admin = database.open({ max: 1 });
  const names = { wordloom_dev: `${database.name}_d`, wordloom_test: `${database.name}_t` };
  let opened: Record<string, Database> = {};
  try {
    opened = await initialise(admin, names);
    expect(Object.keys(opened)).toEqual(["wordloom_dev", "wordloom_test"]);
    for (const [name, own, other] of [
      ["wordloom_dev", "dev", "test"],
      ["wordloom_test", "test", "dev"],
    ] as const) {
      const db = opened[name]?.db;
      if (!db) throw new Error(`init.sql does not connect to ${name}`);
      expect(await checkSentinel(db, own)).toBe("same");
      expect(String(await rejection(checkSentinel(db, other)))).toContain("[ENV_GUARD]");
      expect(await migrate(db, own)).toEqual(migrations.map((migration) => migration.name));
      expect(await checkSentinel(db, own)).toBe("same");
      expect(await migrate(db, own)).toEqual([]);
      expect(String(await rejection(migrate(db, other)))).toContain(`sentinel says ${own}`);
    }
  } finally {
    await Promise.all(Object.values(opened).map((other) => other.close()));
    for (const name of Object.values(names))
      await admin.db.execute(sql.raw(`drop database if exists ${name} with (force)`));
    await admin.close();
  }
}, 30_000);

test("the SQL of the runbooks runs as it stands, on either queue", async () => {
  const opened = database.open({ max: 1 });
  try {
    const statements = blocks("sql");
    expect(new Set(statements.map(({ alert }) => alert)).size).toBe(8);
    for (const { text } of statements)
      for (const statement of [text, text.replaceAll("search_outbox_events", "chronicle_outbox_events")])
        await opened.db.execute(sql.raw(statement));
  } finally {
    await opened.close();
  }
}, 30_000);

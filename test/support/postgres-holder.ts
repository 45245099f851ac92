import { argv } from "node:process";
import postgres from "postgres";
import { startPostgres } from "../../src/embedded/postgres/start.ts";

/**
 * Starts the tests' Postgres in the folder of its argument and keeps it until nobody has used it for ten seconds. A process of its own, and nobody's child: Bun's test
 * runner ends what a test file has started together with the file, while others are still at work in that server.
 */
const dataDir = argv[2];
if (dataDir === undefined) throw new Error("name the data folder");
const server = await startPostgres({ dataDir, durability: "none" });
if (!server.adopted) {
  const sql = postgres({ ...server.connection, database: "postgres", max: 1, max_lifetime: null, onnotice: () => {} });
  for (let idle = 0; idle < 20; ) {
    await Bun.sleep(500);
    const [row] = await sql<{ members: number }[]>`
      select count(*)::int as members from pg_stat_activity where application_name = 'wordloom member'`;
    idle = row?.members === 1 ? idle + 1 : 0;
  }
  await sql.end({ timeout: 2 });
}
await server.stop();

import pg from "pg";
import { PgBoss } from "pg-boss";

/** Drains jobs with pg-boss and prints one line of JSON. `pg-boss.ts URL COUNT BATCH CONCURRENCY` */
const [connectionString = "", count = "0", batch = "500", concurrency = "2"] = process.argv.slice(2);
const boss = new PgBoss({ connectionString, supervise: false, schedule: false });
boss.on("error", (error) => process.stderr.write(`${error}\n`));
await boss.start();
await boss.createQueue("noop");
await boss.deleteAllJobs("noop");
const total = Number(count);
for (let i = 0; i < total; i += 5000)
  await boss.insert(
    "noop",
    Array.from({ length: Math.min(5000, total - i) }, (_, n) => ({ data: { id: i + n } })),
  );
const pool = new pg.Pool({ connectionString, max: 1 });
await pool.query("vacuum analyze");
await pool.end();
const startedAt = performance.now();
let seen = 0;
const loop = async () => {
  for (;;) {
    const jobs = await boss.fetch("noop", { batchSize: Number(batch) });
    if (jobs.length === 0) return;
    await boss.complete(
      "noop",
      jobs.map((job) => job.id),
    );
    seen += jobs.length;
  }
};
await Promise.all(Array.from({ length: Number(concurrency) }, loop));
const seconds = (performance.now() - startedAt) / 1000;
if (seen !== total) throw new Error(`pg-boss completed ${seen} of ${total}`);
await boss.stop({ graceful: false });
process.stdout.write(`${JSON.stringify({ peer: "pg-boss", count: total, rate: total / seconds })}\n`);
process.exit(0);

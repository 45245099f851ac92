import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";

/** Drains jobs with graphile-worker and prints one line of JSON. `graphile.ts URL COUNT CONCURRENCY LOCAL_QUEUE BATCH_DELAY_MS [PIN]` */
const [connectionString = "", count = "0", concurrency = "24", localQueue = "500", delay = "0", pin] =
  process.argv.slice(2);
const pgPool = new pg.Pool({ connectionString, max: 10 });
pgPool.on("error", (error) => process.stderr.write(`${error}\n`));
// It logs a line for every job unless told not to: that would be measured too.
const logger = new Logger(() => () => {});
const utils = await makeWorkerUtils({ pgPool });
await utils.migrate();
await pgPool.query("truncate graphile_worker._private_jobs");
await pgPool.query(
  `select graphile_worker.add_jobs(array(select json_populate_record(null::graphile_worker.job_spec, json_build_object('identifier', 'noop', 'payload', json_build_object('id', i))) from generate_series(1, $1::int) i))`,
  [Number(count)],
);
await pgPool.query("vacuum analyze graphile_worker._private_jobs");
const pinned = pin === "pin" ? await pgPool.connect() : null;
if (pinned)
  await pinned.query("begin isolation level repeatable read; select count(*) from graphile_worker._private_jobs");
const total = Number(count);
const done = (() => {
  let resolve;
  const promise = new Promise((r) => {
    resolve = r;
  });
  return { promise, resolve };
})();
let seen = 0;
const startedAt = performance.now();
const runner = await run({
  pgPool,
  preset: {
    worker: {
      concurrentJobs: Number(concurrency),
      localQueue: { size: Number(localQueue) },
      completeJobBatchDelay: Number(delay),
      failJobBatchDelay: Number(delay),
      pollInterval: 100,
    },
  },
  logger,
  noHandleSignals: true,
  taskList: {
    noop: () => {
      seen += 1;
      if (seen === total) done.resolve();
    },
  },
});
await done.promise;
// A job counts when its row says so, not when its function returned.
while (Number((await pgPool.query("select count(*) from graphile_worker._private_jobs")).rows[0].count) > 0)
  await new Promise((r) => setTimeout(r, 5));
const seconds = (performance.now() - startedAt) / 1000;
if (pinned) {
  await pinned.query("rollback");
  pinned.release();
}
await runner.stop();
await utils.release();
await pgPool.end();
process.stdout.write(`${JSON.stringify({ peer: "graphile-worker", count: total, rate: total / seconds })}\n`);
process.exit(0);

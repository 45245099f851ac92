import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import { startEngine } from "../../src/embedded/elasticsearch/engine.ts";
import { until } from "../support/until.ts";
import { judge, readRetries } from "./oracle.ts";
import { asked, documentId, openScene, readMetric } from "./scene.ts";

const seconds = asked("WORDLOOM_TEST_OUTAGE_SECONDS", 4);
const batchSize = 100;

// An engine that can be stopped and started again, so always the embedded one.
const dataDir = mkdtempSync(join(tmpdir(), "wordloom-storm-"));
let engine = await startEngine({ dataDir, port: 0 });
const { url } = engine;
const scene = await openScene(url);
afterAll(async () => {
  await engine.stop();
  rmSync(dataDir, { recursive: true });
}, 60_000);

const numbersFrom = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

/** Some thirty changes a second until it is stopped: two new entities, of which some are deleted, and one that is changed again and again. */
function write(): AsyncDisposable & { readonly stop: () => Promise<void> } {
  const stopped = new AbortController();
  const writing = (async () => {
    for (let n = 10_000; !stopped.signal.aborted; n += 2) {
      await scene.change([n, n + 1, n % 97], (changed) => changed > 97 && changed % 10 === 0);
      await Bun.sleep(100);
    }
  })();
  const stop = () => {
    stopped.abort();
    return writing;
  };
  return { stop, [Symbol.asyncDispose]: stop };
}

test(
  `while the engine is away for ${seconds} s nothing fails, little is tried, and all of it lands when it is back`,
  async () => {
    const worker = await scene.startWorker("w1", { OUTBOX_BULK_SIZE: String(batchSize) });
    const metric = (name: string) => readMetric(worker, name);
    await using writer = write();
    await until("work to flow", async () => (await scene.client.count({ index: scene.index })).count > 0, 20_000);
    const failedBefore = await metric("outbox_es_bulk_failed_requests_total");

    await engine.stop();
    const endsAt = performance.now() + seconds * 1000;
    await scene.change(numbersFrom(1000, 800));
    const states = new Set<number>();
    await until(
      "the outage to be over",
      async () => {
        states.add(await metric("outbox_breaker_state"));
        return performance.now() >= endsAt;
      },
      (seconds + 20) * 1000,
    );
    // Open, or half-open with a probe on its way.
    expect(states).toContain(2);

    // Two failures open the breaker, each with another batch beside it; afterwards two probes a second.
    const failed = (await metric("outbox_es_bulk_failed_requests_total")) - failedBefore;
    expect(failed).toBeGreaterThan(0);
    expect(failed).toBeLessThanOrEqual(4 + 2 * seconds + 1);
    const [rows] = await scene.db.execute<{
      terminal: number;
      tried: number;
      attempts: number;
      most: number;
      untried: number;
    }>(sql`
    select count(*) filter (where status = 'failed')::int as terminal, count(*) filter (where attempts > 0)::int as tried, sum(attempts)::int as attempts,
           max(attempts) as most, count(*) filter (where attempts = 0)::int as untried
      from search_outbox_events_live`);
    expect(rows?.terminal).toBe(0);
    // One probe may be under way.
    expect(rows?.attempts).toBeLessThanOrEqual((failed + 1) * batchSize);
    expect(rows?.most).toBeLessThanOrEqual(failed + 1);

    engine = await startEngine({ dataDir, port: Number(new URL(url).port) });
    const fresh = numbersFrom(5000, 20);
    await scene.change(fresh);
    const backAt = performance.now();
    await until(
      "what was written now to be found",
      async () => {
        const { docs } = await scene.client.mget({ index: scene.index, ids: fresh.map(documentId), _source: false });
        return docs.every((doc) => "found" in doc && doc.found);
      },
      2_000,
    );
    const tookMs = Math.round(performance.now() - backAt);
    await writer.stop();
    await until("every event to be done", async () => (await scene.waiting()) === 0, 60_000);
    expect(await judge(scene)).toEqual([]);
    expect(await metric("outbox_breaker_state")).toBe(0);
    process.stderr.write(
      `outage: ${seconds} s, ${failed} requests failed, rows ${JSON.stringify(rows)}, retries ${JSON.stringify(await readRetries(scene))}, the fresh ones after ${tookMs} ms\n`,
    );
  },
  60_000 + seconds * 2000,
);

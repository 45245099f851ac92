import { describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { PgDialect } from "drizzle-orm/pg-core";
import type { Projection } from "../../src/projection/projection.ts";
import {
  emptyQueue,
  makeDue,
  openSearch,
  type Recorded,
  readRows,
  recordSignals,
  runBatch,
  seed,
  upserts,
} from "../support/batch.ts";
import { intercept } from "../support/intercept.ts";
import { requestError } from "../support/scripted-engine.ts";
import { openScriptedSearch } from "../support/scripted-search.ts";
import { until } from "../support/until.ts";
import { startWorker } from "../support/worker.ts";

/** What an outage of the target does to a running worker, and what it must not do to the events. */

const { database, db, engine, client } = await openScriptedSearch({ max: 8 });

/** Runs a worker, `through` its own way to the database, while `work` goes on, then drains it. */
async function working(
  projection: Projection,
  recorded: Recorded,
  work: () => Promise<void>,
  { through = db, concurrency = 2 } = {},
): Promise<void> {
  const worker = startWorker(
    { ...database, db: through },
    projection,
    { batchSize: 10, concurrency, pollMs: 50 },
    recorded,
  );
  try {
    await work();
  } finally {
    await worker.end();
  }
}

const unavailable = () => requestError(503, "unavailable_shards_exception", "says no");

async function countRows(where: string): Promise<number> {
  const [row] = await db.execute<{ n: number }>(
    sql`select count(*)::int as n from search_outbox_events where ${sql.raw(where)}`,
  );
  return row?.n ?? 0;
}

describe("while the target is down", () => {
  test("no more than two probes a second are sent, and most events are never touched", async () => {
    const recorded = recordSignals({ LOG_LEVEL: "debug" });
    await seed(db, upserts(100));
    const sentAt: number[] = [];
    engine.whole = () => {
      sentAt.push(performance.now());
      return unavailable();
    };
    let openAt = 0;
    await working(openSearch(db, client), recorded, async () => {
      await until("the breaker opens", () => recorded.gauge("outbox_breaker_state") === 2);
      openAt = sentAt.length;
      await until("three probes", () => sentAt.length >= openAt + 3, 20_000);
    });

    const probes = sentAt.slice(openAt);
    const gaps = probes.slice(1).map((at, i) => at - (probes[i] ?? 0));
    expect(gaps.every((gap) => gap > 450)).toBe(true);
    // Two batches may have been claimed when it opened, and were given back.
    expect(recorded.told('"outbox.claim_batch"').length).toBeLessThanOrEqual(engine.requests.length + 2);
    // Two outages open it, one more request may have been on its way; then a probe each.
    expect(openAt).toBeLessThanOrEqual(3);
    // What was built before it opened goes to nobody: each probe is one event.
    expect(engine.requests.slice(openAt).map((r) => r.items.length)).toEqual(probes.map(() => 1));
    const rows = await readRows(db);
    expect(rows.filter((row) => row.status !== "pending" || row.counted > 0)).toEqual([]);
    const carried = engine.requests.reduce((n, r) => n + r.items.length, 0);
    expect(rows.reduce((n, row) => n + row.attempts, 0)).toBe(carried);
    expect(carried).toBeLessThanOrEqual(10 * engine.requests.length);
  }, 40_000);

  test("one line a second is logged at most, whatever it is about, with what the last probe has met", async () => {
    const recorded = recordSignals();
    await seed(db, upserts(100));
    engine.whole = unavailable;
    await working(openSearch(db, client), recorded, async () => {
      await until("the breaker opens", () => recorded.gauge("outbox_breaker_state") === 2);
      const opened = engine.requests.length;
      await until("all that was built before is given back", () => engine.requests.length > opened);
      recorded.forget();
      await until("probes", () => engine.requests.length >= opened + 7, 20_000);
      const lines = recorded.told("").filter(({ level }) => level !== "debug");
      const at = lines.map(({ ts }) => Date.parse(String(ts)));
      expect(at.slice(1).every((time, i) => time - (at[i] ?? 0) >= 900)).toBe(true);
      expect(lines.map(({ event }) => event)).toContain("outbox.process");
      expect(lines.find(({ event }) => event === "outbox.process")).toMatchObject({
        reason: "es_5xx",
        result: "retry",
      });
    });
  }, 40_000);

  test("while it has asked for a wait, and is not even probed, it is told that it is still down", async () => {
    const recorded = recordSignals();
    await seed(db, upserts(100));
    engine.whole = unavailable;
    await working(openSearch(db, client), recorded, async () => {
      await until("the breaker opens", () => recorded.gauge("outbox_breaker_state") === 2);
      let asked = 0;
      engine.whole = () => {
        asked += 1;
        return requestError(503, "unavailable_shards_exception", "says no", { "retry-after": "60" });
      };
      await until("it asks for a wait", () => asked === 1);
      await until("that is settled", async () => (await countRows("status = 'processing'")) === 0);
      recorded.forget();
      const [line] = await until("it is told", () => {
        const lines = recorded.told('"outbox.breaker_waiting"');
        return lines.length > 0 && lines;
      });
      expect(line).toMatchObject({ reason: "es_5xx", level: "warn" });
      expect(asked).toBe(1);
    });
  }, 40_000);

  test("what waits for it is due at once when it is back, however long its backoff", async () => {
    const recorded = recordSignals();
    const events = await seed(db, upserts(60));
    await engine.refuse();
    await working(openSearch(db, client), recorded, async () => {
      await until("the breaker opens", () => recorded.gauge("outbox_breaker_state") === 2);
      await until("some wait an hour", () => countRows("next_retry_at > now() + interval '25 minutes'"));
      await engine.listen();
      await until("all are done", async () => (await countRows("status = 'done'")) === 60, 15_000);
    });
    expect(events.filter(({ documentId }) => engine.held.get(documentId)?.version !== 7n)).toEqual([]);
    expect(recorded.told('"outbox.hastened"').length).toBeGreaterThan(0);
    expect(recorded.gauge("outbox_breaker_state")).toBe(0);
  }, 40_000);

  test("what waits for it is due when it is back, though Postgres fails just then", async () => {
    const recorded = recordSignals();
    await seed(db, upserts(60));
    await engine.refuse();
    let failures = 0;
    const failing = intercept(db, (statement) => {
      const { sql: text, params } = new PgDialect().sqlToQuery(statement);
      // A probe asks for one event.
      if (!text.includes("with waiting") || params[2] === 1 || failures === 2) return db.execute(statement);
      failures += 1;
      return Promise.reject(Object.assign(new Error("terminating connection"), { code: "57P01" }));
    });
    await working(
      openSearch(db, client),
      recorded,
      async () => {
        await until("the breaker opens", () => recorded.gauge("outbox_breaker_state") === 2);
        await until("some wait an hour", () => countRows("next_retry_at > now() + interval '25 minutes'"));
        await engine.listen();
        await until("all are done", async () => (await countRows("status = 'done'")) === 60, 15_000);
      },
      { through: failing },
    );
    expect(failures).toBe(2);
  }, 40_000);

  test("however much waits for it, no statement makes more than ten thousand events due", async () => {
    const recorded = recordSignals();
    await seed(db, upserts(25_000));
    await db.execute(sql`
      update search_outbox_events set next_retry_at = now() + interval '1 hour', error_reason = 'es_connect'
       where id > (select min(id) + 100 from search_outbox_events)`);
    await engine.refuse();
    const limits: number[] = [];
    const seen = intercept(db, (statement) => {
      const { sql: text, params } = new PgDialect().sqlToQuery(statement);
      if (text.includes("with waiting")) limits.push(Number(params[2]));
      return db.execute(statement);
    });
    await working(
      openSearch(db, client),
      recorded,
      async () => {
        await until("the breaker opens", () => recorded.gauge("outbox_breaker_state") === 2);
        await engine.listen();
        await until("all are due", async () => (await countRows("next_retry_at > now()")) === 0, 20_000);
      },
      { through: seen },
    );
    expect(Math.max(...limits)).toBe(10_000);
    const counts = await until("it is told", () => {
      const lines = recorded.told('"outbox.hastened"');
      return lines.length > 0 && lines.map(({ count }) => Number(count));
    });
    expect(counts).toHaveLength(1);
    expect(counts[0]).toBeGreaterThan(24_000);
  }, 40_000);

  const inTwoSeconds = () => requestError(429, "es_rejected_execution_exception", "queue", { "retry-after": "2" });
  /** Works off 40 events in batches of 10, one at a time, of which one request is told to wait. Returns how many came after that one, and within two seconds of it. */
  async function askForTwoSeconds(at: number, maxBytes?: number): Promise<number> {
    const recorded = recordSignals();
    await seed(db, upserts(40));
    const sentAt: number[] = [];
    engine.whole = async () => {
      const n = sentAt.push(performance.now());
      // So long that a batch is built ahead.
      if (n === 1) await until("a second batch is ready", () => prepared === 2);
      return n === at ? inTwoSeconds() : undefined;
    };
    const work = () => until("all are done", async () => (await countRows("status = 'done'")) === 40, 20_000);
    let prepared = 0;
    const options = { backoff: { baseMs: 1, maxMs: 1 }, ...(maxBytes === undefined ? {} : { maxBytes }) };
    const search = openSearch(db, client, options);
    const projection: Projection = {
      ...search,
      prepare: async (lease, signals) => {
        const ready = await search.prepare(lease, signals);
        prepared += 1;
        return ready;
      },
    };
    await working(projection, recorded, async () => void (await work()), { concurrency: 1 });
    const [asked = 0, ...after] = sentAt.slice(at - 1);
    return after.filter((sent) => sent - asked < 1990).length;
  }

  test("Retry-After holds back the events and every request after it, also of the batch that was built ahead", async () => {
    expect(await askForTwoSeconds(1)).toBe(0);
  }, 40_000);

  test("Retry-After of one request of a batch that was cut into several holds back the next batch", async () => {
    expect(await askForTwoSeconds(2, 1)).toBe(0);
  }, 40_000);

  /** The search projection in whose batch every request but the first would come too early. */
  const heldAfterOne = (options: Parameters<typeof openSearch>[2]) => async (): Promise<Projection> => {
    const search = openSearch(db, client, options);
    return {
      ...search,
      prepare: async (lease, signals) => {
        const ready = await search.prepare(lease, signals);
        if ("decided" in ready) return ready;
        return {
          send: (signal, pacing) =>
            ready.send(signal, { ...pacing, waitMs: () => (engine.requests.length === 0 ? 0 : 30_000) }),
        };
      },
    };
  };

  test("a wait that the engine asks another batch for is kept by the rest of this one, which costs no attempt", async () => {
    const recorded = recordSignals();
    await seed(db, upserts(3));
    await runBatch(db, heldAfterOne({ maxBytes: 1, backoff: { baseMs: 1, maxMs: 1 } }), recorded);
    expect(engine.requests).toHaveLength(1);
    const rows = await readRows(db);
    const held = { status: "pending", reason: "es_429", attempts: 0, counted: 0 };
    expect(rows).toMatchObject([{ status: "done", attempts: 1 }, held, held]);
    for (const { dueIn } of rows.slice(1)) expect(dueIn).toBeGreaterThan(20);
  });

  test("so it is by the halves of a request that was refused for a document, which have been sent once", async () => {
    const recorded = recordSignals();
    await seed(db, upserts(4));
    engine.whole = () => requestError(400, "mapper_parsing_exception", "says no");
    await runBatch(db, heldAfterOne({}), recorded);
    expect(engine.requests).toHaveLength(1);
    const held = { status: "pending", reason: "es_429", attempts: 1, counted: 0 };
    expect(await readRows(db)).toMatchObject([held, held, held, held]);
  });

  test("Retry-After is read as a date too, by the clock of the engine, and neither a past nor an absurd one breaks the settle", async () => {
    const recorded = recordSignals();
    const inAnHour = (ms: number) => new Date(Date.now() + 3_600_000 + ms).toUTCString();
    const waits: [string, number, number, string?][] = [
      // By the engine's clock, which is an hour before ours.
      [inAnHour(40_000), 20, 41, inAnHour(0)],
      [new Date(Date.now() + 40_000).toUTCString(), 20, 41, "yesterday"],
      ["99999999999999999999", 55, 60.1],
      [new Date(Date.now() + 40_000).toUTCString(), 20, 41],
      ["Wed, 21 Oct 2015 07:28:00 GMT", -60, 0.1],
      ["soon", -60, 0.1],
    ];
    for (const [header, least, most, date = new Date().toUTCString()] of waits) {
      await emptyQueue(db);
      await seed(db, upserts(1));
      engine.whole = () =>
        requestError(429, "es_rejected_execution_exception", "queue", { "retry-after": header, date });
      await runBatch(db, openSearch(db, client, { backoff: { baseMs: 1, maxMs: 1 } }), recorded);
      const [row] = await readRows(db);
      expect(row).toMatchObject({ status: "pending", reason: "es_429" });
      expect(row?.dueIn).toBeGreaterThan(least);
      expect(row?.dueIn).toBeLessThan(most);
    }
  });
});

describe("a target that does not answer", () => {
  const hour = 3_600_000;
  /** Opens the breaker by refusals, then answers probes as `whole` says. */
  async function probed(whole: typeof engine.whole, work: (recorded: Recorded) => Promise<void>): Promise<void> {
    const recorded = recordSignals();
    await seed(db, upserts(20));
    engine.whole = unavailable;
    // No request ends by its own deadline.
    await working(openSearch(db, client, { timeoutMs: hour }), recorded, async () => {
      await until("the breaker opens", () => recorded.gauge("outbox_breaker_state") === 2);
      engine.whole = whole;
      await work(recorded);
      await until("all are done", async () => (await countRows("status = 'done'")) === 20, 20_000);
    });
    expect(recorded.gauge("outbox_breaker_state")).toBe(0);
  }

  test("is found when it is back, though it swallowed the probe before", async () => {
    let swallowed = 0;
    await probed(
      () => {
        swallowed += 1;
        return { kind: "hang" };
      },
      async () => {
        await until("a probe is swallowed", () => swallowed === 1);
        engine.whole = () => undefined;
      },
    );
    expect(swallowed).toBe(1);
  }, 40_000);

  test("is not taken for away for ever when it is only slower than a probe may be", async () => {
    const answering = async () => {
      await Bun.sleep(1500);
      return undefined;
    };
    await probed(answering, async (recorded) => {
      await until("a probe is given up", () => recorded.told('"es_timeout"').length > 0);
    });
  }, 40_000);
});

describe("attempts", () => {
  const exhaust = async (limits: { maxAttempts: number; terminalOnTransient: boolean }, times: number) => {
    const recorded = recordSignals();
    await seed(db, upserts(3));
    engine.whole = unavailable;
    for (let i = 0; i < times; i += 1) {
      await makeDue(db);
      await runBatch(db, openSearch(db, client, { limits }), recorded);
    }
    return (await readRows(db)).map(({ status, reason, attempts, counted }) => ({ status, reason, attempts, counted }));
  };

  test("an outage never uses up OUTBOX_MAX_ATTEMPTS", async () => {
    const row = { status: "pending", reason: "es_5xx", attempts: 8, counted: 0 };
    expect(await exhaust({ maxAttempts: 3, terminalOnTransient: false }, 8)).toEqual([row, row, row]);
  });

  test("with OUTBOX_TERMINAL_ON_TRANSIENT it does", async () => {
    const row = { status: "failed", reason: "es_5xx", attempts: 3, counted: 3 };
    expect(await exhaust({ maxAttempts: 3, terminalOnTransient: true }, 8)).toEqual([row, row, row]);
  });

  test("with OUTBOX_TERMINAL_ON_TRANSIENT an event that was not sent does not fail", async () => {
    const recorded = recordSignals();
    await seed(db, upserts(2));
    engine.whole = unavailable;
    const limits = { maxAttempts: 1, terminalOnTransient: true };
    await runBatch(db, openSearch(db, client, { limits, maxBytes: 1 }), recorded);
    expect(engine.requests).toHaveLength(1);
    expect(await readRows(db)).toMatchObject([
      { status: "failed", attempts: 1 },
      { status: "pending", attempts: 0, counted: 0 },
    ]);
  });
});

test("a request that the engine has no memory for comes back in smaller ones", async () => {
  const recorded = recordSignals();
  await seed(
    db,
    upserts(4).map((event) => ({ ...event, text: "x".repeat(40_000) })),
  );
  const projection = openSearch(db, client, { maxBytes: 200_000 });
  engine.whole = () => requestError(429, "circuit_breaking_exception", "too large for the heap");
  await runBatch(db, projection, recorded);
  engine.whole = () => undefined;
  await makeDue(db);
  await runBatch(db, projection, recorded);
  expect(engine.requests.map((r) => r.items.length)).toEqual([4, 2, 2]);
  expect((await readRows(db)).filter((row) => row.status !== "done")).toEqual([]);
});

test("one overloaded answer halves the requests in flight", async () => {
  const recorded = recordSignals();
  const [event] = await seed(db, upserts(3));
  engine.item = ({ id }) =>
    id === event?.documentId
      ? { status: 429, error: { type: "es_rejected_execution_exception", reason: "" } }
      : undefined;
  await runBatch(db, openSearch(db, client), recorded);
  expect(recorded.gauge("outbox_inflight_limit")).toBe(1);
});

import { afterEach, describe, expect, setSystemTime, test } from "bun:test";
import type { Reason } from "../../src/events.ts";
import { createPace } from "../../src/projection/pace.ts";
import type { Applied, TargetHealth } from "../../src/projection/projection.ts";
import { recordSignals } from "../support/batch.ts";
import { until } from "../support/until.ts";

const applied =
  (health: TargetHealth): (() => Promise<Applied>) =>
  () =>
    Promise.resolve({ decisions: new Map(), health });
const well = applied({ kind: "well" });
const overloaded = applied({ kind: "overloaded", retryAfterMs: null });
const down = (retryAfterMs: number | null = null, reason: Reason = "es_5xx") =>
  applied({ kind: "down", reason, retryAfterMs });

function open(concurrency = 8) {
  const recorded = recordSignals();
  let closed = 0;
  const pace = createPace(concurrency, recorded.signals, () => {
    closed += 1;
  });
  return { pace, recorded, closed: () => closed };
}

afterEach(() => setSystemTime());

describe("requests in flight", () => {
  test("halve when the target is overloaded, down to one, and come back one by one, never above the setting", async () => {
    const { pace, recorded } = open(8);
    const limits: number[] = [pace.limit()];
    for (let i = 0; i < 4; i += 1) {
      await pace.send(overloaded);
      limits.push(pace.limit());
    }
    expect(limits).toEqual([8, 4, 2, 1, 1]);
    const before = pace.limit();
    await pace.send(well);
    expect(pace.limit()).toBe(before + 1);
    let sends = 0;
    for (; pace.limit() < 8; sends += 1) await pace.send(well);
    // One more per window full of successes: 2 + 3 + … + 7, give or take one each.
    expect(sends).toBeGreaterThan(20);
    for (let i = 0; i < 50; i += 1) await pace.send(well);
    expect(pace.limit()).toBe(8);
    expect(recorded.gauge("outbox_inflight_limit")).toBe(8);
  });
});

describe("the breaker", () => {
  test("opens at the second outage in a row, and lets nothing through but two probes a second", async () => {
    const { pace, recorded } = open();
    await pace.send(down());
    await pace.send(well);
    await pace.send(down());
    expect(pace.open()).toBe(false);
    await pace.send(down());
    expect([pace.open(), pace.probing(), pace.limit()]).toEqual([true, true, 1]);
    expect(recorded.gauge("outbox_breaker_state")).toBe(2);
    expect(pace.waitMs()).toBeGreaterThan(0);
    expect(pace.waitMs()).toBeLessThanOrEqual(500);
    let sent = false;
    const refused = await pace.send(() => {
      sent = true;
      return well();
    });
    expect([refused, sent]).toEqual([null, false]);
  });

  test("a partial success is no outage", async () => {
    const { pace } = open();
    for (let i = 0; i < 10; i += 1) await pace.send(overloaded);
    expect(pace.open()).toBe(false);
  });

  test("a probe that fails keeps it open for another half second; one that succeeds closes it and says that the target is back", async () => {
    const { pace, recorded, closed } = open();
    await pace.send(down());
    await pace.send(down());
    await until("the first probe is allowed", () => pace.waitMs() === 0);
    expect(await pace.send(down())).not.toBeNull();
    expect(pace.waitMs()).toBeGreaterThan(0);
    expect(closed()).toBe(0);
    await until("the second probe is allowed", () => pace.waitMs() === 0);
    expect(await pace.send(well)).not.toBeNull();
    expect([pace.open(), pace.probing(), pace.waitMs(), closed()]).toEqual([false, false, 0, 1]);
    expect(recorded.gauge("outbox_breaker_state")).toBe(0);
    const states = recorded.told('"outbox.breaker"').map((line) => line["state"]);
    expect(states).toEqual(["open", "closed"]);
  });

  test("a wall clock that is set back an hour does not hold it open", async () => {
    const { pace } = open();
    await pace.send(down());
    await pace.send(down());
    setSystemTime(new Date(Date.now() - 3_600_000));
    await until("the probe is allowed", () => pace.waitMs() === 0);
    expect(await pace.send(well)).not.toBeNull();
  });

  test("a wall clock that is set forward an hour does not let a probe through early", async () => {
    const { pace } = open();
    await pace.send(down());
    await pace.send(down());
    setSystemTime(new Date(Date.now() + 3_600_000));
    expect(await pace.send(well)).toBeNull();
  });

  test("Retry-After holds the next claim back, open or not", async () => {
    const { pace } = open();
    await pace.send(down(30_000, "es_429"));
    expect(pace.open()).toBe(false);
    expect(pace.waitMs()).toBeGreaterThan(29_000);
    expect(pace.reason()).toBe("es_429");
  });

  test("Retry-After holds for what was claimed before it, for every request of a batch, and after a partial success", async () => {
    const { pace } = open();
    const onItsWay = Promise.withResolvers<undefined>();
    let waits: number[] = [];
    const cut = pace.send(async ({ waitMs }) => {
      waits = [waitMs()];
      await onItsWay.promise;
      waits.push(waitMs());
      return await well();
    });
    await pace.send(applied({ kind: "overloaded", retryAfterMs: 30_000 }));
    onItsWay.resolve(undefined);
    await cut;
    expect(waits[0]).toBe(0);
    expect(waits[1]).toBeGreaterThan(29_000);
    let sent = false;
    const refused = await pace.send(() => {
      sent = true;
      return well();
    });
    expect([refused, sent]).toEqual([null, false]);
  });

  test("of two waits that are asked for the longer one holds", async () => {
    const { pace } = open();
    await Promise.all([pace.send(down(30_000, "es_429")), pace.send(down(1000, "es_429"))]);
    expect(pace.waitMs()).toBeGreaterThan(29_000);
  });
});

import { afterEach, expect, test } from "bun:test";
import { combine } from "../../src/app/projections.ts";
import type { Db } from "../../src/db/client.ts";
import { type Health, type HealthOptions, watchHealth } from "../../src/projection/health.ts";
import { type Recorded, recordSignals } from "../support/batch.ts";
import { until } from "../support/until.ts";

/** What the health body says (facts of the operator documents), of a database and a target that are the test. */

const open = new Set<Health>();
afterEach(() => {
  for (const health of open) health.close();
  open.clear();
});

const failure = (code: string) => Object.assign(new Error("says no"), { code });

function watch(over: Partial<HealthOptions> = {}, { signals }: Recorded = recordSignals()) {
  const database = { fails: false };
  const execute = () => (database.fails ? Promise.reject(failure("ECONNREFUSED")) : Promise.resolve([]));
  const options: HealthOptions = {
    projection: "search_index_to_elastic",
    workerId: "w1",
    maxSilenceMs: 10_000,
    pingIntervalMs: 5,
    pingTimeoutMs: 1000,
    failsBeforeDraining: 3,
    pingTarget: null,
    ...over,
  };
  const health = watchHealth({ execute } as unknown as Db, options, signals);
  open.add(health);
  return { health, database };
}

test("a loop that has not turned for too long is not alive, and is again once it turns", async () => {
  const { health } = watch({ maxSilenceMs: 1000 });
  health.tick();
  expect(health.live()).toMatchObject({ ok: true, reason: null });
  await until("it is silent for too long", () => !health.live().ok);
  expect(health.live().last_loop_ago_seconds).toBeGreaterThanOrEqual(1);
  expect(health.live().reason).toBe("loop_silence>1.0s");
  health.tick();
  expect(health.live()).toMatchObject({ ok: true, reason: null });
});

test("while the target is down the worker is degraded, and alive and ready; once it is back, or a stop comes, it is what it was to be", async () => {
  const recorded = recordSignals();
  const { health } = watch({}, recorded);
  health.targetDown("es_connect");
  const degraded = { ok: true, reason: null, state: "DEGRADED" };
  expect([health.live(), health.ready()]).toMatchObject([degraded, degraded]);
  expect(health.mayClaim()).toBe(true);
  await until("it is pinged", () => health.ready().db.ok);
  expect(health.ready().state).toBe("DEGRADED");
  health.targetDown(null);
  expect(health.ready().state).toBe("RUNNING");
  expect(recorded.told('"worker.state"').map(({ state, reason }) => [state, reason])).toEqual([
    ["DEGRADED", "es_connect"],
    ["RUNNING", "none"],
  ]);
  health.stopRequested("signal");
  health.targetDown("es_connect");
  expect(health.ready()).toMatchObject({ ok: false, reason: "draining", state: "DRAINING" });
});

test("a failed ping is told with its code, never with what the server says; enough of them end the claims until one succeeds", async () => {
  const { health, database } = watch();
  expect(health.ready()).toMatchObject({ ok: true, db: { ok: true, consecutive_failures: 0, last_error: null } });
  database.fails = true;
  await until("a ping fails", () => !health.ready().ok);
  expect(health.ready().db).toMatchObject({ ok: false, last_error: "ECONNREFUSED" });
  await until("nothing is claimed", () => !health.mayClaim());
  expect(health.ready()).toMatchObject({
    state: "DRAINING",
    reason: "draining",
    stop_requested: false,
    stop_reason: null,
  });
  expect(health.ready().db.consecutive_failures).toBeGreaterThanOrEqual(3);
  expect(health.live().ok).toBe(true);
  database.fails = false;
  await until("it is ready again", () => health.ready().ok);
  expect(health.mayClaim()).toBe(true);
  expect(health.ready().db).toEqual({ ok: true, consecutive_failures: 0, last_error: null });
});

test("a worker that is asked to stop is not ready but alive until it has stopped, and says for what it was asked first", () => {
  for (const reason of ["signal", "run_seconds"] as const) {
    const { health } = watch();
    health.stopRequested(reason);
    health.stopRequested(reason === "signal" ? "run_seconds" : "signal");
    const asked = { stop_requested: true, stop_reason: reason };
    expect(health.ready()).toMatchObject({ ok: false, reason: "draining", state: "DRAINING", ...asked });
    expect(health.live()).toMatchObject({ ok: true, reason: null });
    health.stopped();
    expect(health.ready()).toMatchObject({ ok: false, reason: "draining", state: "STOPPED", ...asked });
    expect(health.live()).toMatchObject({ ok: false, reason: "stopped" });
  }
});

test("of several projections the first that is not well speaks for the process, and each has its own report beside it", () => {
  const [search, chronicle] = [watch().health, watch({ projection: "chronicle_events_to_entries" }).health];
  const read = () => combine([search, chronicle].map((health) => health.ready()));
  const well = read();
  expect(well).toEqual({
    ...search.ready(),
    last_loop_ago_seconds: expect.any(Number),
    projections: [expect.anything(), expect.anything()],
  });
  chronicle.stopRequested("signal");
  const keys = [
    "ok",
    "reason",
    "projection",
    "worker_id",
    "state",
    "stop_requested",
    "stop_reason",
    "last_loop_ago_seconds",
    "db",
  ];
  expect(Object.keys(read())).toEqual([...keys, "projections"]);
  expect(read()).toMatchObject({
    ok: false,
    reason: "draining",
    projection: "chronicle_events_to_entries",
    projections: [{ ok: true, projection: "search_index_to_elastic" }, { ok: false }],
  });
  expect(Object.keys(combine([search.ready()]))).toEqual(keys);
});

test("claims that go without a connection for longer than a moment make it not ready, until one gets a connection", async () => {
  const { health } = watch();
  for (const code of ["POOL_TIMEOUT", "53300"]) {
    health.tick();
    health.claimFailed(failure(code));
    expect(health.ready().ok).toBe(true);
    health.claimFailed(failure(code));
    await until("it is no passing moment", () => !health.ready().ok);
    expect(health.ready()).toMatchObject({
      reason: "db_unhealthy",
      db: { ok: false, consecutive_failures: 2, last_error: code },
    });
    expect([health.live().ok, health.mayClaim()]).toEqual([true, true]);
    health.claimed();
    expect(health.ready()).toMatchObject({ ok: true, db: { ok: true, last_error: null } });
  }
});

test("a claim that fails for another reason had a connection", async () => {
  const { health } = watch();
  health.tick();
  health.claimFailed(failure("POOL_TIMEOUT"));
  await until("it is no passing moment", () => !health.ready().ok);
  health.claimFailed(failure("55P03"));
  expect(health.ready().ok).toBe(true);
});

test("where the target must be ready, it is not ready before the target has said so, and says dependency_unhealthy", async () => {
  const asked: ((ok: boolean) => void)[] = [];
  const ping = () => {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    asked.push(resolve);
    return promise;
  };
  const { health } = watch({ pingTarget: { ping, intervalMs: 3_600_000 } });
  expect(health.ready()).toMatchObject({ ok: false, reason: "dependency_unhealthy" });
  expect(health.live().ok).toBe(true);
  asked[0]?.(true);
  await until("it is ready", () => health.ready().ok);
});

test("the target is not asked again before it has answered: no older answer overwrites a newer one", async () => {
  let under = 0;
  let most = 0;
  let ok = true;
  let asked = 0;
  let ticks = 0;
  const clock = setInterval(() => {
    ticks += 1;
  }, 2);
  const ping = async () => {
    under += 1;
    asked += 1;
    most = Math.max(most, under);
    const since = ticks;
    await until("several intervals to pass", () => ticks >= since + 5);
    under -= 1;
    return ok;
  };
  const { health } = watch({ pingTarget: { ping, intervalMs: 2 } });
  await until("it is ready", () => health.ready().ok);
  ok = false;
  await until("it is not", () => health.ready().reason === "dependency_unhealthy");
  await until("it was asked often", () => asked >= 5);
  clearInterval(clock);
  expect(most).toBe(1);
});

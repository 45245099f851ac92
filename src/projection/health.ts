import type { Db } from "../db/client.ts";
import { databaseErrorCode, isExhausted } from "../db/failure.ts";
import { ping } from "../db/ping.ts";
import { every } from "../pause.ts";
import type { WorkerSignals } from "../telemetry/worker-signals.ts";

export type WorkerState = "RUNNING" | "DEGRADED" | "DRAINING" | "STOPPED";

export type StopReason = "signal" | "run_seconds";

export type HealthOptions = {
  readonly projection: string;
  readonly workerId: string;
  readonly maxSilenceMs: number;
  readonly pingIntervalMs: number;
  readonly pingTimeoutMs: number;
  readonly failsBeforeDraining: number;
  /** Asks the target, when OUTBOX_REQUIRE_ES_READY; null otherwise. */
  readonly pingTarget: { readonly ping: () => Promise<boolean>; readonly intervalMs: number } | null;
};

/** The body of /livez, /readyz and /healthz (operator documents; facts §4.7). */
export type HealthReport = {
  readonly ok: boolean;
  readonly reason: string | null;
  readonly projection: string;
  readonly worker_id: string;
  readonly state: WorkerState;
  readonly stop_requested: boolean;
  readonly stop_reason: StopReason | null;
  readonly last_loop_ago_seconds: number;
  readonly db: { readonly ok: boolean; readonly consecutive_failures: number; readonly last_error: string | null };
};

export type Health = {
  /** The loop turned. */
  readonly tick: () => void;
  /** A claim got a connection, whatever it found. */
  readonly claimed: () => void;
  readonly claimFailed: (error: unknown) => void;
  /** Why the target counts as down; null while it does not. */
  readonly targetDown: (reason: string | null) => void;
  /** False while the database does not answer: a claim could not be settled. */
  readonly mayClaim: () => boolean;
  readonly stopRequested: (reason: StopReason) => void;
  readonly stopped: () => void;
  readonly live: () => HealthReport;
  readonly ready: () => HealthReport;
  readonly close: () => void;
};

/** For how long claims may go without a connection until that is no passing moment. */
const exhaustedMs = 1000;

/** A number with its point, as the reason is spelled: "10.0". */
const asDecimal = (n: number) => (Number.isInteger(n) ? n.toFixed(1) : String(n));

/** `db` is a pool of its own: a ping must not queue behind the work that it watches. That the work gets no connection is what claims tell. */
export function watchHealth(db: Db, options: HealthOptions, signals: WorkerSignals): Health {
  let lastTick = performance.now();
  let state: WorkerState = "RUNNING";
  let stopReason: StopReason | null = null;
  let down: string | null = null;
  let failures = 0;
  let lastError: string | null = null;
  let exhausted: { readonly since: number; readonly failures: number; readonly code: string | null } | null = null;
  const { pingTarget } = options;
  // Not before it has said so.
  let targetOk = pingTarget === null;
  const turn = (to: WorkerState, reason: string | null) => {
    if (state === to || state === "STOPPED") return;
    state = to;
    signals.stateTurned(to, reason);
  };

  /** DEGRADED: alive and ready, but what it works for is down; the work waits. */
  const work = () => turn(down === null ? "RUNNING" : "DEGRADED", down);

  async function pingDatabase(): Promise<void> {
    try {
      await ping(db, options.pingTimeoutMs);
      failures = 0;
      lastError = null;
      if (stopReason === null) work();
    } catch (error) {
      failures += 1;
      // Never the message: the server's may quote what it was told.
      lastError = databaseErrorCode(error) ?? "unknown error";
      if (failures >= options.failsBeforeDraining) turn("DRAINING", "db_unhealthy");
    }
  }

  const stopPinging = every(options.pingIntervalMs, pingDatabase);
  const stopAskingTarget =
    pingTarget &&
    every(pingTarget.intervalMs, async () => {
      targetOk = await pingTarget.ping();
    });

  const database = () => {
    if (failures > 0) return { ok: false, consecutive_failures: failures, last_error: lastError };
    if (exhausted !== null && performance.now() - exhausted.since > exhaustedMs)
      return { ok: false, consecutive_failures: exhausted.failures, last_error: exhausted.code };
    return { ok: true, consecutive_failures: 0, last_error: null };
  };

  const report = (reason: string | null): HealthReport => ({
    ok: reason === null,
    reason,
    projection: options.projection,
    worker_id: options.workerId,
    state,
    stop_requested: stopReason !== null,
    stop_reason: stopReason,
    last_loop_ago_seconds: Math.round(performance.now() - lastTick) / 1000,
    db: database(),
  });
  const notLive = () => {
    if (state === "STOPPED") return "stopped";
    return performance.now() - lastTick > options.maxSilenceMs
      ? `loop_silence>${asDecimal(options.maxSilenceMs / 1000)}s`
      : null;
  };
  const notReady = () => {
    if (stopReason !== null || state === "DRAINING" || state === "STOPPED") return "draining";
    if (!database().ok) return "db_unhealthy";
    return targetOk ? null : "dependency_unhealthy";
  };
  return {
    tick: () => {
      lastTick = performance.now();
    },
    claimed: () => {
      exhausted = null;
    },
    claimFailed: (error) => {
      // The turn of the loop began with asking for the connection.
      exhausted = isExhausted(error)
        ? {
            since: exhausted?.since ?? lastTick,
            failures: (exhausted?.failures ?? 0) + 1,
            code: databaseErrorCode(error) ?? null,
          }
        : null;
    },
    targetDown: (reason) => {
      down = reason;
      if (state === "RUNNING" || state === "DEGRADED") work();
    },
    mayClaim: () => state !== "DRAINING",
    stopRequested: (reason) => {
      stopReason ??= reason;
      turn("DRAINING", reason);
    },
    stopped: () => turn("STOPPED", stopReason),
    live: () => report(notLive()),
    ready: () => report(notReady()),
    close: () => {
      void stopPinging();
      void stopAskingTarget?.();
    },
  };
}

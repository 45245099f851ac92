import { projections } from "../../events.ts";
import { atLeast, type Drill, everythingDone, holds, none, targetIsSource, told } from "../drill.ts";

/** Drill F: a worker is killed with events in hand, and another takes them over once the lease has run out. */
export const stuckReclaim: Drill = {
  name: "stuck_reclaim",
  service: "search",
  inject: ({ options }) => ({ signal: "SIGKILL after the claim", OUTBOX_LEASE_SECONDS: options.leaseSeconds }),
  run: async (stage) => {
    const { leaseSeconds, triggerCount = 5 } = stage.options;
    // All in one batch, whatever their number.
    const lease = { OUTBOX_LEASE_SECONDS: String(leaseSeconds), OUTBOX_BULK_SIZE: "1000" };
    for (let n = 0; n < triggerCount; n += 1) await stage.createTag();
    const first = await stage.worker("worker1", {
      ...lease,
      OUTBOX_RECLAIM_INTERVAL_SECONDS: "600",
      OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS: "600",
    });
    await stage.until("a worker to have the events in hand", async () =>
      (await stage.searchEvents()).every(({ status }) => status === "processing"),
    );
    first.kill("SIGKILL");
    await first.exited;
    const second = await stage.holdingQueue(async () => {
      const started = await stage.worker("worker2", { ...lease, OUTBOX_RECLAIM_INTERVAL_SECONDS: "0.5" });
      await started.scrape("before-2");
      return started;
    });
    await stage.landed();
    await second.counted("outbox_processed_total", { projection: projections.search }, triggerCount);
    await second.scrape("after-2");
  },
  checks: (evidence) => {
    const rows = evidence.rows.filter(({ projection }) => projection === projections.search);
    const reclaimed = rows.filter(
      (row) =>
        row.reclaim_count > 0 &&
        row.last_reclaimed_by === "labs-worker2" &&
        row.last_reclaimed_from === "labs-worker1" &&
        row.last_reclaimed_reason === "lease_expired",
    );
    const labels = { projection: projections.search };
    return [
      atLeast("outbox_processed_total", evidence.delta("outbox_processed_total", labels, "-2"), rows.length),
      atLeast(
        "outbox_reclaimed_total",
        evidence.delta("outbox_reclaimed_total", { ...labels, why: "lease_expired" }, "-2"),
        rows.length,
      ),
      none("outbox_failed_total", evidence.delta("outbox_failed_total", {}, "-2")),
      holds(
        "every row says who took it from whom, and why",
        `all ${rows.length}`,
        rows.length > 0 && reclaimed.length === rows.length,
        reclaimed.length,
      ),
      told(evidence, "of the reclaim, with who and why", "outbox.reclaimed", {
        who: "labs-worker2",
        from: "labs-worker1",
        why: "lease_expired",
      }),
      everythingDone(evidence),
      targetIsSource(evidence),
    ];
  },
};

import { projections } from "../../events.ts";
import { services } from "../../telemetry/keys.ts";
import { atLeast, type Drill, everythingDone, holds, none, targetIsSource, tellsOf } from "../drill.ts";
import { readRecord } from "../evidence.ts";
import { exportTraces } from "../export.ts";
import { findTraces } from "../jaeger.ts";
import { freePort } from "../processes.ts";

const lookbackMs = 3_600_000;
const dropped = "wordloom_spans_dropped_total";

/** Not in the menu of the operator documents: the trace store goes away under a worker, and comes back. */
export const collectorDown: Drill = {
  name: "collector_down",
  service: "search",
  exportsItself: true,
  inject: () => ({ otlp_endpoint: "stopped while the worker runs, then started again on the same port" }),
  run: async (stage) => {
    const port = freePort();
    const first = await stage.openCollector(port);
    let collector: typeof first | undefined = first;
    try {
      const worker = await stage.worker("worker", { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${first.url}/v1/traces` });
      await worker.scrape("before");
      const write = async () => {
        await stage.createTag();
        await stage.landed();
      };
      const arrived = () =>
        stage.until("the event's span to arrive", async () => {
          const id = (await stage.searchEvents()).at(-1)?.id ?? "";
          const tags = { "wordloom.outbox_event_id": id };
          const query = { service: services.search, operation: "outbox.process", tags };
          return (await findTraces(first.url, query, lookbackMs, 1)).data.length > 0;
        });
      await write();
      await arrived();
      await first.stop();
      collector = undefined;
      await write();
      await worker.counted(dropped, {});
      collector = await stage.openCollector(port);
      await write();
      await arrived();
      await worker.counted("outbox_processed_total", { projection: projections.search }, 3);
      await worker.scrape("after");
      stage.evidence.write("_worker_exit.json", { code: await worker.stop() });
      const how = { url: first.url, service: services.search, lookbackMs, limit: 50, patienceMs: 0 };
      await exportTraces(stage.evidence, await stage.searchEvents(), how);
    } finally {
      await collector?.stop();
    }
  },
  checks: (evidence) => {
    const { rows, spans, delta } = evidence;
    const { code } = readRecord(evidence.dir, "_worker_exit.json");
    const searched = rows.filter(({ projection }) => projection === projections.search);
    const found = searched.filter((row) => spans.some((span) => tellsOf(span, row)));
    const lost = searched.length - found.length;
    return [
      atLeast("outbox_processed_total", delta("outbox_processed_total", { projection: projections.search }), 3),
      none("outbox_failed_total", delta("outbox_failed_total")),
      atLeast(`${dropped}: as many as events without a span, and one at least`, delta(dropped), Math.max(1, lost)),
      holds("the worker ends well", "exit code 0", code === 0, code ?? null),
      holds(
        "spans arrive before and after the outage",
        "of the first and the last event",
        [searched[0], searched.at(-1)].every((row) => row !== undefined && found.includes(row)),
        found.map(({ id }) => id),
      ),
      everythingDone(evidence),
      targetIsSource(evidence),
    ];
  },
};

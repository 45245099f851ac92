import { type ApiServer, createServer, type ServerParts } from "../http/server.ts";
import type { WakeUps } from "../outbox/wake.ts";
import { apiSignals } from "../telemetry/request-signals.ts";
import type { Sinks } from "../telemetry/signals.ts";
import type { Store } from "./store.ts";

/** The API on its parts; it does not listen yet. */
export function openApi(
  { settings, database }: Store,
  client: ServerParts["search"]["client"],
  wakeUps: WakeUps,
  sinks: Sinks,
): ApiServer {
  return createServer({
    db: database.db,
    config: settings.config,
    search: { client, index: settings.index },
    signals: apiSignals(sinks),
    wakeUps,
    readiness: { draining: false },
    metrics: async (request) => {
      const { contentType, body } = await sinks.metrics.render(request.headers.get("accept"));
      return new Response(body, { headers: { "content-type": contentType } });
    },
  });
}

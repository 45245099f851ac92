import type { Config } from "../config.ts";
import type { Db } from "../db/client.ts";
import { gather } from "../db/gather.ts";
import type { Appended } from "../events.ts";
import { type Asked, type Cause, type Committed, type Unit, write } from "../library/change.ts";
import type { WakeUps } from "../outbox/wake.ts";
import type { ApiSignals, RequestSignals } from "../telemetry/request-signals.ts";
import { readJson } from "./body.ts";

/** What the routes work with. */
export type Desk = {
  readonly db: Db;
  readonly signals: ApiSignals;
  readonly wakeUps: WakeUps;
  readonly config: Pick<
    Config,
    | "API_MAX_BODY_BYTES"
    | "CHRONICLE_BLOCK_UPDATED_DEDUPE_SECONDS"
    | "DATABASE_POOL_TIMEOUT_MS"
    | "DEV_USER_ID"
    | "ENABLE_SEARCH_PROJECTION"
  >;
  /** The signals of a request that is being answered. */
  readonly signalsOf: (request: Request) => RequestSignals;
};

/** One write on behalf of a request: when it has committed, it is counted and the workers are woken. Throws what `work` throws. */
export const writeFor = <T>(desk: Desk, request: Request, work: (unit: Unit) => Promise<T>): Promise<T> =>
  write(desk.db, causeOf(desk, request), committed(desk), work);

/** Larger crowds gain nothing more; with one at a time, and with more than two, writes wait longer (measured at 1,000 a second). */
const crowd = { most: 100, atOnce: 2 };

/** As `writeFor`, for a verb that writes for several callers at once: requests that come while others are written are written together. */
export function writeTogetherFor<Fields, T>(
  desk: Desk,
  verb: string,
  work: (
    db: Db,
    committed: Committed,
    asked: readonly Asked<Fields>[],
    patient: boolean,
  ) => Promise<readonly (T | Error)[]>,
): (request: Request, fields: Fields) => Promise<T> {
  const { ask, waiting } = gather<Asked<Fields>, T>(
    (asked, patient) => work(desk.db, committed(desk), asked, patient),
    { ...crowd, timeoutMs: desk.config.DATABASE_POOL_TIMEOUT_MS },
  );
  desk.signals.waitingAhead(verb, waiting);
  return (request, fields) => ask({ cause: causeOf(desk, request), fields });
}

function causeOf(desk: Desk, request: Request): Cause {
  const { trace, correlationId } = desk.signalsOf(request);
  return { ...trace, actorId: desk.config.DEV_USER_ID, source: "api", correlationId };
}

const committed = (desk: Desk) => (appended: Appended) => {
  desk.signals.appended(appended);
  desk.wakeUps.announce();
};

/** For a route's `parse`: its body is JSON, whatever the content type. */
export const jsonBody =
  (desk: Desk) =>
  ({ request }: { request: Request }): Promise<unknown> =>
    readJson(request, desk.config.API_MAX_BODY_BYTES);

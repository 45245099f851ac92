import type { Client } from "@elastic/elasticsearch";
import type { Db } from "../../db/client.ts";
import { nameFailure } from "../../db/failure.ts";
import { type ClaimedEvent, type Decision, type Lease, ops } from "../../events.ts";
import { queues } from "../../outbox/queue.ts";
import { type BulkItem, bulkBody, type ItemResult, sendBulk } from "../../search/bulk.ts";
import type { BatchSignals } from "../../telemetry/batch-signals.ts";
import { type Backoff, retryDelayMs } from "../backoff.ts";
import type { BulkExperiment } from "../experiment.ts";
import { failedForGood, failedOnce, isolating } from "../isolate.ts";
import type { Applied, Pacing, Prepared, Projection, TargetHealth } from "../projection.ts";
import { failureClass, type Limits, type Verdict, verdict } from "../verdict.ts";
import { answerInTime, retryAfter } from "./answer.ts";
import { outageIn, sendBisecting } from "./bisect.ts";
import { createSizeLimit, cut, type Request, type Sent } from "./cut.ts";
import { buildItems } from "./document.ts";

export type SearchProjectionOptions = {
  readonly index: string;
  readonly maxBytes: number;
  /** Text that a batch has in memory at once, in bytes; the rest of a larger one is read when that is sent. */
  readonly textAtOnce?: number;
  readonly timeoutMs: number;
  readonly limits: Limits;
  readonly backoff: Backoff;
  readonly experiment: BulkExperiment;
};

/** The newest of several events of one entity covers them all: each would build the same document. */
function newestPerEntity(events: readonly ClaimedEvent[]): { newest: ClaimedEvent[]; superseded: ClaimedEvent[] } {
  const byEntity = new Map<string, ClaimedEvent>();
  const superseded: ClaimedEvent[] = [];
  for (const event of events) {
    const key = `${event.entityType}:${event.entityId}`;
    const other = byEntity.get(key);
    const newer = other === undefined || event.eventVersion >= other.eventVersion;
    if (other) superseded.push(newer ? other : event);
    if (newer) byEntity.set(key, event);
  }
  return { newest: [...byEntity.values()], superseded };
}

/** `document` names the document by its index and id. */
function decide(
  event: ClaimedEvent,
  document: string,
  judged: Verdict,
  retryAfterMs: number | null,
  backoff: Backoff,
  sent: boolean,
): Decision {
  if (judged.kind === "done")
    return {
      outcome: { kind: "done", result: judged.result, sent },
      ...(judged.result === "noop" ? { noopReason: judged.reason } : {}),
      ...(judged.result === "applied" && judged.warning !== undefined ? { warning: judged.warning } : {}),
    };
  const { kind, reason, counted, errorType } = judged;
  const error = `${document}: ${judged.error}`;
  // What was not sent has not failed: it shares the reason, and waits.
  if (kind === "fail" && sent) return { outcome: { kind, reason, error, sent }, errorType };
  const delayMs = Math.max(retryDelayMs(event.attempts, backoff), retryAfterMs ?? 0);
  return { outcome: { kind: "retry", reason, error, delayMs, counted: counted && sent, sent }, errorType };
}

function healthOf(verdicts: readonly Verdict[], retryAfterMs: number | null): TargetHealth {
  const ill = verdicts.filter((v) => v.kind !== "done" && v.infrastructure);
  const [first] = ill;
  if (first === undefined || first.kind === "done") return { kind: "well" };
  if (ill.length === verdicts.length) return { kind: "down", reason: first.reason, retryAfterMs };
  return { kind: "overloaded", retryAfterMs };
}

/** Requests whose documents are in memory, and the events whose documents are not yet. */
type Part = { readonly requests: readonly Request[]; readonly later: readonly ClaimedEvent[] };

/** What stands for the answer to a request that is not sent because the engine has asked for a wait meanwhile, when it answered another batch. */
function heldBack({ waitMs }: Pacing): (ItemResult & { kind: "failed" }) | undefined {
  const retryAfterMs = waitMs();
  if (retryAfterMs === 0) return undefined;
  const detail = "not sent: the engine has asked for a wait";
  return { kind: "failed", failure: { kind: "http", status: 429, errorType: null, detail, retryAfterMs } };
}

/** A batch on its way. `decisions` grows until it holds one for each event. */
type Batch = { readonly decisions: Map<bigint, Decision>; readonly signals: BatchSignals };
/** What holds while it is sent. */
type Sending = Batch & { readonly signal: AbortSignal; readonly pacing: Pacing };

/** What is searched goes to Elasticsearch: one bulk item per entity, external versions, each item judged by itself. */
export function searchProjection(db: Db, client: Client, options: SearchProjectionOptions): Projection {
  const { index, timeoutMs, limits, backoff, experiment } = options;
  const size = createSizeLimit(options.maxBytes);

  /** Builds those that are not too long to be in memory together. What cannot be built is decided. */
  async function tryBuild(events: readonly ClaimedEvent[], { decisions, signals }: Batch) {
    // One document that the database cannot read must not keep back its neighbours.
    const built = await isolating<BulkItem | "later" | Decision>(
      events,
      (some) => buildItems(db, some, options.textAtOnce),
      (event, error) => {
        signals.blamed(event, error);
        return failedOnce(event, nameFailure(error), limits.maxAttempts, backoff);
      },
    );
    const sent: Sent[] = [];
    const later: ClaimedEvent[] = [];
    for (const [i, event] of events.entries()) {
      const item = built[i];
      if (item === undefined) continue;
      if (item === "later") later.push(event);
      else if ("outcome" in item) decisions.set(event.id, item);
      else sent.push({ event, item });
    }
    return { sent, later };
  }

  async function build(events: readonly ClaimedEvent[], batch: Batch): Promise<Part> {
    let { sent, later } = await tryBuild(events, batch);
    const rest: ClaimedEvent[] = [];
    // The fewer they are, the longer they may be.
    while (sent.length === 0 && later.length > 0) {
      const half = Math.ceil(later.length / 2);
      rest.push(...later.slice(half));
      ({ sent, later } = await tryBuild(later.slice(0, half), batch));
    }
    return { requests: cut(sent, size.bytes()), later: [...later, ...rest] };
  }

  async function post(
    items: readonly BulkItem[],
    body: string,
    { signals, signal, pacing }: Sending,
  ): Promise<ItemResult[]> {
    const startedAt = Date.now();
    const clock = performance.now();
    const results = await experiment.inject(items, body, (some, its) =>
      answerInTime(sendBulk(client, index, some, its, { timeoutMs, signal }), some, pacing),
    );
    const told = items.map((item, i) => ({
      op: item.op,
      failureClass: failureClass(results[i] ?? { kind: "unanswered" }, { sentAs: item.op, version: item.version }),
    }));
    const failed = results.find((r) => r.kind === "failed")?.failure;
    signals.bulkSent({
      startedAt,
      durationMs: performance.now() - clock,
      index,
      result: failed ? "failed" : told.some((item) => item.failureClass !== null) ? "partial" : "success",
      ...(failed ? { error: failed.kind === "http" ? String(failed.status) : failed.kind } : {}),
      items: told,
    });
    return results;
  }

  async function send(first: Part, batch: Sending): Promise<Applied> {
    const { decisions, pacing } = batch;
    const verdicts: Verdict[] = [];
    let wait: number | null = null;
    let outage: ReturnType<typeof outageIn>;

    const sendRequest = async (request: Request): Promise<void> => {
      const items = request.sent.map((s) => s.item);
      // What stopped the request before would stop this one too.
      const told = outage ?? heldBack(pacing);
      const answers =
        told !== undefined
          ? items.map((): ItemResult => ({ ...told, unsent: true }))
          : await sendBisecting(async (part) => {
              // A half, which has been sent before, in the request that was refused.
              const held = heldBack(pacing);
              if (held !== undefined) return part.map(() => held);
              return await post(part, part.length === items.length ? request.body : bulkBody(part), batch);
            }, items);
      if (told === undefined) size.heed(answers);
      outage ??= outageIn(answers);
      wait = retryAfter(answers) ?? wait;
      for (const [i, { event, item }] of request.sent.entries()) {
        const result = answers[i] ?? { kind: "unanswered" };
        const { countedAttempts } = event;
        const judged = verdict(result, { sentAs: item.op, version: item.version, countedAttempts }, limits);
        verdicts.push(judged);
        const sent = result.kind !== "failed" || result.unsent !== true;
        const decision = decide(event, `${index}/${item.id}`, judged, wait, backoff, sent);
        const labs = result.kind === "answered" ? result.labs : undefined;
        decisions.set(event.id, labs === undefined ? decision : { ...decision, labs });
      }
    };

    for (let part = first; ; part = await build(part.later, batch)) {
      for (const request of part.requests) await sendRequest(request);
      if (part.later.length === 0) break;
      if (outage === undefined) continue;
      for (const { id } of part.later) decisions.set(id, { outcome: { kind: "release" } });
      break;
    }
    return { decisions, health: healthOf(verdicts, wait) };
  }

  return {
    queue: queues.search,
    gatherMs: 2,
    prepare: async (lease: Lease, signals: BatchSignals): Promise<Prepared> => {
      const batch: Batch = { decisions: new Map(), signals };
      const known: ClaimedEvent[] = [];
      for (const event of lease.events) {
        if (ops.includes(event.op)) known.push(event);
        else batch.decisions.set(event.id, failedForGood(`the search index knows no op "${event.op}"`));
      }
      const { newest, superseded } = newestPerEntity(known);
      for (const { id } of superseded)
        batch.decisions.set(id, { outcome: { kind: "done", result: "superseded", sent: false } });
      const part = await build(newest, batch);
      const documents = part.requests.reduce((sum, { sent }) => sum + sent.length, 0);
      signals.prepared(documents);
      if (documents + part.later.length === 0) return { decided: batch.decisions };
      return { send: (signal, pacing) => send(part, { ...batch, signal, pacing }) };
    },
  };
}

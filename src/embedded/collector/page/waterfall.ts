import { durationUs, microseconds } from "../store.ts";
import type { StoredSpan } from "../traces.ts";

/** A span's place in the picture of its trace. */
export type Row = {
  readonly stored: StoredSpan;
  /** 0 for a root, and for a span whose parent is not here. */
  readonly depth: number;
  /** From the start of the trace. */
  readonly offsetUs: number;
  readonly durationUs: number;
};

/** The spans as a tree read from top to bottom: each parent before its children, siblings by their start. Every span comes once, also where parents go round. */
export function layOut(spans: readonly StoredSpan[]): { readonly rows: readonly Row[]; readonly durationUs: number } {
  const byId = new Map(spans.map((stored) => [stored.span.spanId, stored]));
  const parentOf = ({ span }: StoredSpan) =>
    span.parentSpanId === undefined ? undefined : byId.get(span.parentSpanId);
  const children = Map.groupBy(spans, parentOf);
  const startUs = Math.min(...spans.map(({ span }) => microseconds(span.startTimeUnixNano)));
  const rows: Row[] = [];
  const placed = new Set<StoredSpan>();
  const place = (from: readonly StoredSpan[]) => {
    const waiting = from.map((stored) => ({ stored, depth: 0 })).toReversed();
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      const { stored, depth } = next;
      if (placed.has(stored)) continue;
      placed.add(stored);
      const offsetUs = microseconds(stored.span.startTimeUnixNano) - startUs;
      rows.push({ stored, depth, offsetUs, durationUs: durationUs(stored.span) });
      const below = children.get(stored) ?? [];
      waiting.push(...below.map((child) => ({ stored: child, depth: depth + 1 })).toReversed());
    }
  };
  place(children.get(undefined) ?? []);
  place(spans);
  const endUs = rows.reduce((end, row) => Math.max(end, row.offsetUs + row.durationUs), 0);
  return { rows, durationUs: endUs };
}

import { expect, test } from "bun:test";
import { openMetrics } from "../../src/telemetry/metrics.ts";

const at = { projection: "wordloom-search" };
const name = "outbox_event_age_seconds";
const trace = (digit: string) => digit.repeat(32);

async function page(metrics: ReturnType<typeof openMetrics>) {
  const { body } = await metrics.render("application/openmetrics-text");
  const lines = body.split("\n").filter((line) => line.startsWith(name));
  const figure = (suffix: string) => Number(lines.find((line) => line.startsWith(`${name}_${suffix}`))?.split(" ")[1]);
  return {
    count: figure("count"),
    sum: figure("sum"),
    exemplars: lines.flatMap((line) => [...(/trace_id="(\w+)"\} (\S+)/g.exec(line)?.slice(1) ?? [])]),
  };
}

test("a tally counts every observation, and nothing before it is flushed", async () => {
  const metrics = openMetrics("worker");
  const tally = metrics.tally();
  tally.observe(name, at, 0.5, trace("a"));
  tally.observe(name, at, 0.2);
  expect(await page(metrics)).toEqual({ count: Number.NaN, sum: Number.NaN, exemplars: [] });
  for (const [i, value] of [3, 1, 3].entries()) tally.observe(name, at, value, trace(String(i)));
  tally.observe(name, at, 7);
  tally.flush();
  const { count, sum } = await page(metrics);
  expect({ count, sum }).toEqual({ count: 6, sum: 14.7 });
});

test("the exemplar of a tally is its largest observation that has a trace", async () => {
  const metrics = openMetrics("worker");
  const tally = metrics.tally();
  for (const [id, value] of [
    ["a", 0.5],
    ["b", 3],
    ["c", 1],
  ] as const)
    tally.observe(name, at, value, trace(id));
  tally.observe(name, at, 7);
  tally.flush();
  expect((await page(metrics)).exemplars).toEqual([trace("b"), "3"]);
  tally.observe(name, at, 0.5, trace("d"));
  tally.flush();
  expect((await page(metrics)).exemplars).toContain(trace("d"));
});

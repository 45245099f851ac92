import { readdirSync, readFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";

/** Clock ticks of /proc/*\/stat per second (USER_HZ is 100 on every Linux that matters). */
const ticksPerSecond = 100;

function stat(pid: number): { parent: number; own: number; reaped: number } | null {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /, "")
      .split(" ");
    const at = (i: number) => Number(fields[i - 3]);
    return { parent: at(4), own: at(14) + at(15), reaped: at(16) + at(17) };
  } catch {
    return null;
  }
}

/** CPU seconds that a process and its children have used, the ended ones included. */
export function cpuSeconds(pid: number): number {
  const root = stat(pid);
  if (root === null) return 0;
  const children = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      const child = stat(Number(name));
      return child?.parent === pid ? [child.own + child.reaped] : [];
    });
  return (root.own + root.reaped + children.reduce((sum, n) => sum + n, 0)) / ticksPerSecond;
}

/** Quantile of numbers, by nearest rank. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] ?? Number.NaN;
}

/** Of an even number of values what lies between the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.slice(Math.ceil(sorted.length / 2) - 1, Math.floor(sorted.length / 2) + 1);
  return middle.reduce((sum, n) => sum + n, 0) / middle.length;
}

/** What the figures were measured on. */
export function machine() {
  return {
    cores: cpus().length,
    cpu: cpus()[0]?.model ?? "unknown",
    memory_gib: Math.round(totalmem() / 2 ** 30),
    bun: Bun.version,
    load_1m: Number(readFileSync("/proc/loadavg", "utf8").split(" ")[0]),
  };
}

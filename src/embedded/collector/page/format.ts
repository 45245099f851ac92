/** 850 µs, 12.3 ms, 4.56 s, 2 m 5 s. */
export function formatDuration(microseconds: number): string {
  if (microseconds < 1000) return `${microseconds} µs`;
  if (microseconds < 1_000_000) return `${significant(microseconds / 1000)} ms`;
  if (microseconds < 60_000_000) return `${significant(microseconds / 1_000_000)} s`;
  const seconds = Math.round(microseconds / 1_000_000);
  return `${Math.floor(seconds / 60)} m ${seconds % 60} s`;
}

const significant = (value: number): string => String(Number(value.toPrecision(3)));

/** 2026-03-01 12:00:00.123456 UTC */
export function formatTime(microseconds: number): string {
  const seconds = new Date(Math.floor(microseconds / 1_000_000) * 1000);
  // Beyond the year 275760 there are no dates: shown as it was sent.
  if (Number.isNaN(seconds.getTime())) return `${microseconds} µs`;
  const fraction = String(Math.floor(microseconds % 1_000_000)).padStart(6, "0");
  return `${seconds.toISOString().slice(0, 19).replace("T", " ")}.${fraction} UTC`;
}

export const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;

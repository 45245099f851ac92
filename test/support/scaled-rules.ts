const secondsIn: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600 };

/**
 * A rule file in which every minute lasts `factor` times less: what an alert waits for (`for`), the windows that it looks back on ([10m]), and the thresholds of what is
 * measured in seconds. Counts, names and words stay.
 */
export function scaleRules(text: string, factor: number): string {
  const shorter = (count: string, unit: string) =>
    `${Math.round((Number(count) * (secondsIn[unit] ?? Number.NaN) * 1000) / factor)}ms`;
  return text
    .replaceAll(/^( +for: )(\d+)([smh])$/gm, (_, key: string, n: string, unit: string) => key + shorter(n, unit))
    .replaceAll(/\[(\d+)([smh])\]/g, (_, n: string, unit: string) => `[${shorter(n, unit)}]`)
    .replaceAll(/(_seconds\b.* > )(\d+)$/gm, (_, before: string, n: string) => before + String(Number(n) / factor));
}

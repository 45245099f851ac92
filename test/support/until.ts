/** Waits until `holds` answers something, and returns that. Throws with `what` when the deadline comes first. */
export async function until<T>(
  what: string,
  holds: () => T | Promise<T>,
  deadlineMs = 10_000,
): Promise<Exclude<T, false | null | undefined | 0>> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const held = await holds();
    if (held) return held as Exclude<T, false | null | undefined | 0>;
    if (performance.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await Bun.sleep(5);
  }
}

/**
 * Waits until `holds` answers something, and returns that. Throws when the deadline comes first, with `what`: a function is asked only then. The deadline is for a
 * machine that is busy with something else; how often it looks (`everyMs`) matters where looking costs what is watched.
 */
export async function until<T>(
  what: string | (() => string),
  holds: () => T | Promise<T>,
  deadlineMs = 60_000,
  everyMs = 5,
): Promise<Exclude<T, false | null | undefined | 0>> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const held = await holds();
    if (held) return held as Exclude<T, false | null | undefined | 0>;
    if (performance.now() > end)
      throw new Error(`not within ${deadlineMs / 1000} s: ${typeof what === "string" ? what : what()}`);
    await Bun.sleep(everyMs);
  }
}

/** Whether a GET is answered, and well: what a process that starts is waited for with. */
export const answers = (url: string): Promise<boolean> =>
  fetch(url).then(
    ({ ok }) => ok,
    () => false,
  );

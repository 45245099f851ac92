import postgres from "postgres";

const againMs = 500;

/**
 * Calls `heard` for every NOTIFY on the channel, and once whenever the subscription is made, now or anew: what was sent meanwhile is lost. On a connection of its own. It is owed
 * nothing, so that nobody would notice when that connection is half-open: every `checkMs` the server is asked for the same channel again, which changes nothing where it
 * answers, and a connection whose statement has no answer in time is closed. (The driver's own `listen` asks the server nothing for a channel that it knows.)
 * Returns the way to end it. Throws what the driver throws when it cannot be made at first.
 */
export async function subscribe(
  options: postgres.Options<Record<string, never>>,
  channel: string,
  heard: () => void,
  checkMs: number,
): Promise<() => Promise<void>> {
  let deaf = true;
  let asking = false;
  let ended = false;
  let again: ReturnType<typeof setTimeout> | undefined;
  const connection = postgres({
    ...options,
    max: 1,
    idle_timeout: 0,
    max_lifetime: null,
    onnotify: heard,
    onclose: () => {
      deaf = true;
      soon();
    },
  } as postgres.Options<Record<string, never>>);

  async function ask(): Promise<void> {
    await connection.unsafe(`listen "${channel}"`);
    if (!deaf) return;
    deaf = false;
    heard();
  }
  function soon(): void {
    if (ended) return;
    again ??= setTimeout(() => {
      again = undefined;
      check();
    }, againMs);
  }
  function check(): void {
    if (asking) return;
    asking = true;
    ask()
      .catch(soon)
      .finally(() => {
        asking = false;
      });
  }

  const beat = setInterval(check, checkMs);
  const end = async () => {
    ended = true;
    clearInterval(beat);
    clearTimeout(again);
    await connection.end({ timeout: 1 });
  };
  try {
    await ask();
  } catch (error) {
    await end();
    throw error;
  }
  return end;
}

/** What users do to an API, again and again, until it is stopped. */
export type Load = {
  /** Requests that were answered, by status. */
  readonly answers: ReadonlyMap<number, number>;
  readonly stop: () => Promise<void>;
};

/**
 * Each round writes a tag and searches for an earlier one; every other tag is renamed at once, every fifth deleted at once, and every tenth name is one that is there already. Nobody tries again
 * what fails. Ends with `stop`, when all is answered.
 */
export function startLoad(url: string, roundsPerSecond: number): Load {
  const answers = new Map<number, number>();
  const underWay = new Set<Promise<void>>();
  const ask = async (method: string, path: string, body?: object) => {
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    const answer = await fetch(`${url}/api/v1/${path}`, { method, ...sent }).catch(() => undefined);
    const status = answer?.status ?? 0;
    answers.set(status, (answers.get(status) ?? 0) + 1);
    return status === 201 ? ((await answer?.json()) as { readonly id: string }) : undefined;
  };
  const run = crypto.randomUUID().slice(0, 8);
  let n = 0;
  const round = async (i: number) => {
    const name = `${run}x${i % 10 === 9 ? i - 4 : i}`;
    // For one of those before: what finds all of them would cost more and more.
    const searched = ask("GET", `search?q=${run}x${i - 20}`);
    const tag = await ask("POST", "tags", { name, color: "#FFFFFF" });
    if (tag !== undefined && i % 2 === 0) await ask("PATCH", `tags/${tag.id}`, { name: `${name} again` });
    if (tag !== undefined && i % 5 === 3) await ask("DELETE", `tags/${tag.id}`);
    await searched;
  };
  const timer = setInterval(() => {
    // An API that hangs does not get more and more to do.
    if (underWay.size > 200) return;
    const work = round(n++).finally(() => underWay.delete(work));
    underWay.add(work);
  }, 1000 / roundsPerSecond);
  return {
    answers,
    stop: async () => {
      clearInterval(timer);
      await Promise.all(underWay);
    },
  };
}

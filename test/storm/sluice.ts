/** A way to the engine on which bulk requests can be held: they arrive later, whatever became of their sender. */
export type Sluice = {
  readonly url: string;
  /** From here on bulk requests are held. */
  readonly shut: () => void;
  /** Bulk requests that are held now. */
  readonly held: () => number;
  /** Lets them all arrive, and those to come. Returns the status that the engine gave each of their items. */
  readonly open: () => Promise<number[]>;
  readonly close: () => Promise<void>;
};

type Bulk = { items?: Record<string, { status: number }>[] };

/** Stands before the engine at `target`. */
export function openSluice(target: string): Sluice {
  let gate = Promise.withResolvers<void>();
  gate.resolve();
  let held: Promise<number[]>[] = [];

  async function pass(request: Request, body: ArrayBuffer): Promise<{ response: Response; text: string }> {
    const { pathname, search } = new URL(request.url);
    const headers = new Headers(request.headers);
    for (const name of ["host", "content-length", "connection", "accept-encoding"]) headers.delete(name);
    const sent = body.byteLength === 0 ? {} : { body };
    const answer = await fetch(new URL(pathname + search, target), { method: request.method, headers, ...sent });
    const text = await answer.text();
    const kept = new Headers(answer.headers);
    for (const name of ["content-length", "content-encoding", "transfer-encoding"]) kept.delete(name);
    return { response: new Response(text, { status: answer.status, headers: kept }), text };
  }

  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    fetch: async (request) => {
      const body = await request.arrayBuffer();
      if (!new URL(request.url).pathname.endsWith("/_bulk")) return (await pass(request, body)).response;
      const passing = gate.promise.then(() => pass(request, body));
      held.push(
        passing.then(({ text }) =>
          ((JSON.parse(text) as Bulk).items ?? []).flatMap((item) => Object.values(item).map(({ status }) => status)),
        ),
      );
      return (await passing).response;
    },
  });
  return {
    url: `http://127.0.0.1:${server.port}`,
    shut: () => {
      held = [];
      gate = Promise.withResolvers<void>();
    },
    held: () => held.length,
    open: async () => {
      gate.resolve();
      return (await Promise.all(held)).flat();
    },
    close: () => server.stop(true),
  };
}

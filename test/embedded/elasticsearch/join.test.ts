import { afterAll, afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { joinEngine } from "../../../src/embedded/elasticsearch/join.ts";
import { until } from "../../support/until.ts";

const folder = mkdtempSync(join(tmpdir(), "wordloom-join-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const { Worker } = globalThis;
afterEach(() => {
  globalThis.Worker = Worker;
});

/** The threads that are started from here on. */
function watchThreads(): Worker[] {
  const started: Worker[] = [];
  globalThis.Worker = class extends Worker {
    constructor(...parameters: ConstructorParameters<typeof Worker>) {
      super(...parameters);
      started.push(this);
    }
  };
  return started;
}

test.each([0, 41_200])(
  "an engine whose thread has broken down is started again where it was, with its data (port %p)",
  async (port) => {
    const threads = watchThreads();
    const engine = await joinEngine({ dataDir: join(folder, `${port}`), port });
    try {
      const index = `${engine.url}/kept`;
      expect((await fetch(index, { method: "PUT" })).status).toBe(200);
      for (const round of [1, 2]) {
        threads.at(-1)?.terminate();
        const status = () =>
          fetch(index).then(
            (response) => (threads.length > round ? response.status : undefined),
            () => undefined,
          );
        expect(await until(`it answers again, round ${round}`, status)).toBe(200);
      }
    } finally {
      await engine.stop();
    }
    expect(threads.length).toBe(3);
    const answered = await fetch(engine.url).then(
      () => true,
      () => false,
    );
    expect(answered).toBe(false);
  },
);

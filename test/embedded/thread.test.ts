import { expect, test } from "bun:test";
import { startThread } from "../../src/embedded/thread.ts";

/** A thread that listens, and is ended by an exception of its own. */
const breaking = `
  self.addEventListener("message", ({ data }) => {
    if (data.kind !== "start") return;
    self.postMessage({ kind: "listening", port: 1 });
    setTimeout(() => { throw new Error("a full disk"); });
  });`;

test("a thread that an exception has ended can be stopped, and nobody waits for its answer", async () => {
  const url = URL.createObjectURL(new Blob([breaking], { type: "application/javascript" }));
  const worker = new Worker(url);
  const closed = new Promise((resolve) => worker.addEventListener("close", resolve));
  const thread = await startThread<{ port: number }>(worker, "the thread", {});
  expect(thread.listening.port).toBe(1);
  await closed;
  await thread.stop();
});

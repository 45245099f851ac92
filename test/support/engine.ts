import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEngine } from "../../src/embedded/elasticsearch/engine.ts";

/** The search engine of this run: the one of ELASTIC_CONTRACT_URL, else a fresh embedded one. */
export async function openEngine(): Promise<{ readonly url: string; readonly close: () => Promise<void> }> {
  const external = process.env["ELASTIC_CONTRACT_URL"];
  if (external) return { url: external, close: () => Promise.resolve() };
  const dataDir = await mkdtemp(join(tmpdir(), "wordloom-test-engine-"));
  const engine = await startEngine({ dataDir, port: 0 });
  return {
    url: engine.url,
    close: async () => {
      await engine.stop();
      await rm(dataDir, { recursive: true });
    },
  };
}

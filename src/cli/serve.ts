import { buildCommand } from "@stricli/core";
import { type Context, readEnv } from "./context.ts";
import { type EnvFileFlag, envFileFlag, hostFlag, portFlag } from "./flags.ts";

type Flags = EnvFileFlag & { host?: string; port?: number };

export const serve = buildCommand({
  docs: {
    brief: "Serve the HTTP API",
    fullDescription: [
      "Examples:",
      "  wordloom serve                           on 127.0.0.1:8000",
      "  wordloom serve --host 0.0.0.0 --port 80",
      "",
      "The database must be migrated (`wordloom migrate`). Run as many as you like on one database; `wordloom work` brings what they write into search.",
      "SIGTERM: no new requests, those in flight are answered, exit 0. A second signal exits at once.",
    ].join("\n"),
  },
  parameters: { flags: { host: hostFlag, port: portFlag, envFile: envFileFlag } },
  async func(this: Context, flags: Flags) {
    const { serve: run } = await import("../app/serve.ts");
    await run(readEnv(this, flags), flags, this.signal);
  },
});

import { run } from "@stricli/core";
import { application, explain } from "./cli/application.ts";
import { CommandError, exitCodes } from "./errors.ts";

/** argv → subcommand → exit code. The first SIGINT or SIGTERM asks the command to finish, the second leaves at once. */

const stop = new AbortController();
/** A Ctrl-C under npm or npx comes twice, from the terminal and from npm: within this time the same signal counts once. */
const echoMs = 300;
let askedAt = 0;
for (const [name, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const)
  process.on(name, () => {
    if (!stop.signal.aborted) {
      askedAt = performance.now();
      stop.abort(name);
    } else if (name !== stop.signal.reason || performance.now() - askedAt > echoMs) process.exit(code);
  });

const crash = (error: unknown) => {
  process.stderr.write(`${explain(error)}\n`);
  process.exit(error instanceof CommandError ? error.exitCode : exitCodes.failed);
};
process.on("uncaughtException", crash);
process.on("unhandledRejection", crash);

// `wordloom config | head`: the reader has seen enough.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(exitCodes.ok);
  crash(error);
});

const io = {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  exitCode: null as number | string | null,
};
await run(application, process.argv.slice(2), { process: io, env: process.env, signal: stop.signal });

/** The parser's own codes are negative: wrong usage, all of them. */
const code = Number(io.exitCode ?? 0);
const done = code < 0 ? exitCodes.usage : code;
// What still waits to be printed goes out first; anything else that is open must not keep the process.
process.stdout.write("", () => process.stderr.write("", () => process.exit(done)));

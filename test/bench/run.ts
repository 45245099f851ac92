import { argv, exit, stderr } from "node:process";

/** `bun run bench NAME`: one benchmark, its raw figures kept under test/bench/results. Each needs the machine for itself for some minutes. */
const benches = {
  drain: () => import("./drain.ts"),
  queue: () => import("./queue.ts"),
  latency: () => import("./latency.ts"),
  backlog: () => import("./backlog.ts"),
  tracing: () => import("./tracing.ts"),
};

const isBench = (name: string): name is keyof typeof benches => name in benches;
const name = argv[2] ?? "";
if (isBench(name)) await benches[name]();
else {
  stderr.write(`bench: name one of ${Object.keys(benches).join(", ")}\n`);
  exit(2);
}

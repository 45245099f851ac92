/**
 * The gate: everything that must hold before a change lands. Every step runs, also after a failure, so that one run
 * tells all. The last line counts tests and steps: `N passed, N failed`.
 */
import { exists, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

interface Step {
  readonly name: string;
  readonly command: readonly string[];
  /** Writes a junit file of this name below .cache/gate; its tests are counted, and there must be some. */
  readonly junit?: string;
}

const root = join(import.meta.dir, "..");
const reports = join(root, ".cache/gate");
const bun = process.execPath;
const tool = (name: string): string => join(root, "node_modules/.bin", name);
const report = (name: string): string[] => ["--reporter=junit", `--reporter-outfile=${join(reports, name)}`];

const steps: readonly Step[] = [
  { name: "format and lint", command: [tool("biome"), "ci", "--error-on-warnings"] },
  { name: "lint with types", command: [tool("oxlint"), "--type-aware", "--deny-warnings"] },
  { name: "types", command: [tool("tsc"), "--noEmit"] },
  { name: "types of the pages", command: [tool("tsc"), "--noEmit", "--project", "tsconfig.browser.json"] },
  { name: "unused code", command: [tool("knip")] },
  {
    name: "tests",
    command: [bun, "test", "--parallel", "--only-failures", "--timeout=30000", ...report("tests.xml")],
    junit: "tests.xml",
  },
  ...(await contract()),
  { name: "build", command: [bun, "tools/build.ts"] },
  {
    name: "smoke test of the binary",
    command: [bun, "test", "./tools/smoke.ts", "--only-failures", "--timeout=60000", ...report("smoke.xml")],
    junit: "smoke.xml",
  },
];

/** The contract suite against real engines; it says itself which it found. */
async function contract(): Promise<Step[]> {
  if (!(await exists(join(root, "tools/contract.ts")))) return [];
  return [
    { name: "contract with real engines", command: [bun, "tools/contract.ts", "--only-failures"] },
    { name: "tracing contract with real Jaeger", command: [bun, "tools/contract-tracing.ts", "--only-failures"] },
  ];
}

let current: Bun.Subprocess | undefined;
for (const [signal, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
  ["SIGHUP", 129],
] as const)
  process.on(signal, () => {
    current?.kill(signal);
    process.exit(code);
  });

await rm(reports, { recursive: true, force: true });
await mkdir(reports, { recursive: true });
let passed = 0;
let failed = 0;
const broken: string[] = [];
for (const step of steps) {
  const started = performance.now();
  const { ok, output } = await run(step.command);
  const tests = step.junit ? await readCounts(join(reports, step.junit)) : undefined;
  // A test run without tests, or with tests left out, has not shown what it is there to show.
  const complete = !tests || (tests.passed + tests.failed > 0 && tests.skipped === 0);
  const good = ok && complete;
  passed += (tests?.passed ?? 0) + (good ? 1 : 0);
  failed += (tests?.failed ?? 0) + (good ? 0 : 1);
  if (!good) broken.push(step.name);
  if (!good) process.stdout.write(output);
  const counts = tests ? ` (${tests.passed} passed, ${tests.failed} failed, ${tests.skipped} skipped)` : "";
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  process.stdout.write(`${good ? "ok  " : "FAIL"} ${step.name}${counts} ${seconds} s\n`);
}
if (broken.length > 0) process.stdout.write(`failed: ${broken.join(", ")}\n`);
process.stdout.write(`${passed} passed, ${failed} failed\n`);
// Not process.exit: what a full pipe has not taken yet would be lost with it, this line first of all.
process.exitCode = failed === 0 ? 0 : 1;

async function run(command: readonly string[]): Promise<{ ok: boolean; output: string }> {
  const child = Bun.spawn([...command], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  current = child;
  const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { ok: (await child.exited) === 0, output: out + err };
}

async function readCounts(path: string): Promise<{ passed: number; failed: number; skipped: number }> {
  const text = (await exists(path)) ? await Bun.file(path).text() : "";
  const [head = ""] = /<testsuites[^>]*>/.exec(text) ?? [];
  const count = (attribute: string): number => Number(new RegExp(` ${attribute}="(\\d+)"`).exec(head)?.[1] ?? 0);
  const [failures, skipped] = [count("failures"), count("skipped")];
  return { passed: count("tests") - failures - skipped, failed: failures, skipped };
}

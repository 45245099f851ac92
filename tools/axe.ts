/**
 * Runs axe-core on the pages of the embedded trace store in a real browser, and fails on what is serious or critical.
 *
 *   npm run axe        CHROMIUM names the browser where it is not called chromium
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startCollector } from "../src/embedded/collector/collector.ts";

const axe = "axe-core@4.11.1";
const folder = await mkdtemp(join(tmpdir(), "wordloom-axe-"));

type Violation = {
  readonly id: string;
  readonly impact: string;
  readonly help: string;
  readonly nodes: readonly { readonly html: string }[];
};

async function fetchAxe(): Promise<string> {
  const npm = Bun.spawn(["npm", "install", "--no-save", "--prefix", folder, axe], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  if ((await npm.exited) !== 0) throw new Error(`npm could not install ${axe}`);
  return await Bun.file(join(folder, "node_modules/axe-core/axe.min.js")).text();
}

/** A request with two events below it, one of which failed. Returns the trace's id. */
async function sendTrace(url: string): Promise<string> {
  const traceId = crypto.randomUUID().replaceAll("-", "");
  const at = BigInt(Date.now()) * 1_000_000n;
  const names = ["POST /api/v1/tags", "outbox.process", "bulk wordloom-search-index"];
  const spans = names.map((name, i) => ({
    traceId,
    spanId: `b7ad6b716920333${i}`,
    ...(i === 0 ? {} : { parentSpanId: "b7ad6b7169203330" }),
    name,
    startTimeUnixNano: String(at + BigInt(i) * 1_000_000n),
    endTimeUnixNano: String(at + 5_000_000n),
    status: i === 2 ? { code: 2, message: "es_429" } : {},
    attributes: [{ key: "result", value: { stringValue: i === 2 ? "retry" : "ok" } }],
  }));
  const resource = { attributes: [{ key: "service.name", value: { stringValue: "wordloom-api" } }] };
  const body = JSON.stringify({ resourceSpans: [{ resource, scopeSpans: [{ spans }] }] });
  const answer = await fetch(`${url}/v1/traces`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  if (!answer.ok) throw new Error(`the trace store answered ${answer.status}`);
  return traceId;
}

/** Starts the browser and returns where its first page is to be driven from (Chrome DevTools Protocol). */
async function openBrowser(): Promise<{ readonly child: Bun.Subprocess; readonly page: string }> {
  const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"];
  const child = Bun.spawn(
    [
      process.env["CHROMIUM"] ?? "chromium",
      ...flags,
      "--remote-debugging-port=0",
      `--user-data-dir=${folder}/profile`,
      "about:blank",
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  let said = "";
  for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) {
    said += chunk;
    const [, host] = /DevTools listening on ws:\/\/([^/]+)\//.exec(said) ?? [];
    if (host === undefined) continue;
    const targets = (await (await fetch(`http://${host}/json`)).json()) as {
      type: string;
      webSocketDebuggerUrl: string;
    }[];
    const page = targets.find(({ type }) => type === "page")?.webSocketDebuggerUrl;
    if (page !== undefined) return { child, page };
  }
  throw new Error(`the browser ended: ${said}`);
}

type Reply = {
  readonly id?: number;
  readonly method?: string;
  readonly result?: unknown;
  readonly error?: { readonly message: string };
};

/** Calls methods of the protocol, and waits for its events. */
async function drive(address: string) {
  const socket = new WebSocket(address);
  await new Promise((resolve) => socket.addEventListener("open", resolve, { once: true }));
  let sent = 0;
  const next = <T>(read: (reply: Reply) => T | undefined) =>
    new Promise<T>((resolve) => {
      const hear = ({ data }: MessageEvent<string>) => {
        const told = read(JSON.parse(data) as Reply);
        if (told === undefined) return;
        socket.removeEventListener("message", hear);
        resolve(told);
      };
      socket.addEventListener("message", hear);
    });
  const call = async (method: string, params: object = {}): Promise<unknown> => {
    sent += 1;
    const id = sent;
    const answered = next((reply) => (reply.id === id ? reply : undefined));
    socket.send(JSON.stringify({ id, method, params }));
    const { result, error } = await answered;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result;
  };
  return {
    call,
    event: (name: string) => next((reply) => (reply.method === name ? true : undefined)),
    close: () => socket.close(),
  };
}

const source = await fetchAxe();
const store = await startCollector({ dataDir: ":memory:", port: 0 });
const trace = await sendTrace(store.url);
const { child, page } = await openBrowser();
const { call, event, close } = await drive(page);
await call("Page.enable");
let bad = 0;
for (const scheme of ["light", "dark"])
  for (const path of ["/search?service=wordloom-api", `/trace/${trace}`, "/trace/none"]) {
    await call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    const loaded = event("Page.loadEventFired");
    await call("Page.navigate", { url: `${store.url}${path}` });
    await loaded;
    const expression = `${source}; axe.run().then((found) => JSON.stringify(found.violations))`;
    const { result } = (await call("Runtime.evaluate", { expression, awaitPromise: true })) as {
      result: { value: string };
    };
    const violations = JSON.parse(result.value) as Violation[];
    const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    bad += grave.length;
    process.stdout.write(
      `${scheme} ${path.replace(trace, "ID")}: ${violations.length} violations, ${grave.length} serious or critical\n`,
    );
    for (const { id, impact, help, nodes } of violations)
      process.stdout.write(`  ${impact} ${id}: ${help}\n${nodes.map(({ html }) => `    ${html}\n`).join("")}`);
  }
close();
child.kill();
await child.exited;
await store.stop();
await rm(folder, { recursive: true, force: true });
process.exit(bad === 0 ? 0 : 1);

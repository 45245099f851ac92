import { existsSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "./cli.ts";
import { read } from "./monitoring.ts";
import { answers, until } from "./until.ts";

const script = join(import.meta.dir, "../../../shared/prometheus/run");
const onPath = Bun.which("promtool") !== null && Bun.which("prometheus") !== null;

/** Whether a real Prometheus and promtool are at hand: on PATH, or through the script that fetches them. */
export const prometheusAtHand = onPath || existsSync(script);

/** Says what is not shown on a machine without them. */
export function tellMissing(what: string): void {
  process.stderr.write(`no prometheus and promtool on PATH: ${what} not checked\n`);
}

/** Runs promtool to its end; `input` goes to its stdin. */
export async function promtool(
  args: readonly string[],
  { cwd, input }: { cwd?: string; input?: string } = {},
): Promise<{ code: number; output: string }> {
  const child = Bun.spawn(onPath ? ["promtool", ...args] : [script, "promtool", ...args], {
    ...(cwd === undefined ? {} : { cwd }),
    stdin: input === undefined ? "ignore" : Buffer.from(input),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, output: out + err };
}

export type Sample = { readonly metric: Readonly<Record<string, string>>; readonly value: readonly [number, string] };

export type Prometheus = {
  /** The samples of an instant query; throws on one that does not parse. */
  readonly query: (expr: string) => Promise<readonly Sample[]>;
  /** GET of its API, as JSON. */
  readonly get: (path: string) => Promise<unknown>;
  readonly stop: () => Promise<void>;
};

/** A process that is scraped, and under which labels. */
export type Target = {
  readonly name: string;
  readonly address: string;
  readonly env: string;
  readonly component: "api" | "worker";
};

/** Writes a configuration into `folder` that scrapes and evaluates every second, with the relabelling of the repository's own. Returns its path. */
export async function configurePrometheus(
  folder: string,
  ruleFiles: readonly string[],
  targets: readonly Target[],
): Promise<string> {
  const path = join(folder, "prometheus.yml");
  const { scrape_configs: jobs } = Bun.YAML.parse(read("docker/prometheus/prometheus.yml")) as {
    scrape_configs: { job_name: string; metric_relabel_configs?: unknown }[];
  };
  const relabelling = jobs.find((job) => job.job_name === "wordloom-api-test")?.metric_relabel_configs;
  // JSON is YAML.
  const config = {
    global: { scrape_interval: "1s", scrape_timeout: "1s", evaluation_interval: "1s" },
    rule_files: ruleFiles,
    storage: { exemplars: { max_exemplars: 10_000 } },
    scrape_configs: targets.map(({ name, address, env, component }) => ({
      job_name: `wordloom-${name}`,
      static_configs: [{ targets: [address], labels: { env, component } }],
      ...(component === "api" ? { metric_relabel_configs: relabelling } : {}),
    })),
  };
  await Bun.write(path, JSON.stringify(config, null, 2));
  return path;
}

/** Starts a real Prometheus on a free port, with its data below `folder`, and waits until it is ready. */
export async function startPrometheus(config: string, folder: string): Promise<Prometheus> {
  const port = String(freePort());
  const flags = ["--enable-feature=exemplar-storage"];
  const child = Bun.spawn(
    onPath
      ? [
          "prometheus",
          `--config.file=${config}`,
          `--storage.tsdb.path=${join(folder, "tsdb")}`,
          `--web.listen-address=127.0.0.1:${port}`,
          "--scrape.discovery-reload-interval=100ms",
          "--log.level=warn",
          ...flags,
        ]
      : [script, "--port", port, "--config", config, "--data", folder, "--", ...flags],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  const base = `http://127.0.0.1:${port}`;
  const said = child.stderr.text();
  const ready = async () => {
    if (child.exitCode !== null) throw new Error(`prometheus ended with ${child.exitCode}: ${await said}`);
    return await answers(`${base}/-/ready`);
  };
  await until("prometheus is ready", ready, 30_000, 50);
  const get = async (path: string): Promise<unknown> => {
    const answer = await fetch(`${base}${path}`);
    const body: unknown = await answer.json();
    if (!answer.ok) throw new Error(`${path}: ${JSON.stringify(body)}`);
    return body;
  };
  return {
    get,
    query: async (expr) => {
      const body = (await get(`/api/v1/query?query=${encodeURIComponent(expr)}`)) as {
        data: { resultType: string; result: Sample[] };
      };
      return body.data.result;
    },
    stop: async () => {
      child.kill();
      await child.exited;
    },
  };
}

import { Type } from "@sinclair/typebox";
import { choice, decimal, flag, formatted, integer, port, secret, text } from "./kinds.ts";

const where = "Environment and storage";
const api = "API";
const log = "Logs";
const trace = "Traces";
const queue = "Worker: queue";
const health = "Worker: endpoints and health";
const search = "Elasticsearch";
const chronicle = "Chronicle";
const lab = "Experiments (refused unless WORDLOOM_ENV is dev or test)";

/**
 * The whole environment, as one schema: parsing, `--help`, docs/configuration.md and the table of defaults come from here.
 * main reads the environment and hands it on; no other file does. The names and defaults are those of the operator documents.
 */
export const schema = Type.Object({
  WORDLOOM_ENV: text(
    where,
    "dev, test, sandbox or prod (also development, testing, production). Must match the database's name and sentinel.",
    { default: "sandbox" },
  ),
  DATABASE_URL: Type.Optional(
    secret(
      where,
      "Postgres, as postgresql://user:password@host:5432/database (postgresql+psycopg:// also works; ?host=/folder for a unix socket; sslmode, sslrootcert, sslcert, sslkey and sslcrl as in libpq). Unset: the bundled PostgreSQL.",
    ),
  ),
  DATABASE_POOL_SIZE: integer(
    where,
    "Maximum number of connections per process and purpose (requests, each projection).",
    { min: 1, max: 200, default: 10 },
  ),
  DATABASE_STATEMENT_TIMEOUT_MS: integer(
    where,
    "Time limit for one statement, lock waits included; a second later the connection is dropped.",
    { min: 100, max: 600_000, default: 5000 },
  ),
  DATABASE_POOL_TIMEOUT_MS: integer(
    where,
    "How long a request or a worker waits for a free connection; then the database counts as unavailable.",
    { min: 10, max: 600_000, default: 5000 },
  ),
  DATABASE_PREPARE: flag(where, "Use prepared statements. Turn off behind a pooler in transaction mode.", true),
  WORDLOOM_DATA_DIR: Type.Optional(
    text(
      where,
      "Where the embedded Postgres and search engine keep their data. Unset: /var/lib/wordloom for root, else $XDG_DATA_HOME/wordloom or ~/.local/share/wordloom.",
    ),
  ),

  ELASTIC_URL: Type.Optional(
    formatted(
      search,
      "Elasticsearch 8 or 9, as http://host:9200 (user:password@ is supported). Unset: the embedded engine.",
      "url",
    ),
  ),
  ELASTIC_API_KEY: Type.Optional(formatted(search, "API key sent to Elasticsearch.", "header")),
  ELASTIC_INDEX: Type.Optional(
    text(
      search,
      "Alias of the search index, one for each environment. Unset: wordloom-search-index, in dev wordloom-dev-search-index, in test wordloom-test-search-index.",
      { pattern: "^[a-z0-9][a-z0-9._-]{0,200}$" },
    ),
  ),
  ELASTIC_REQUEST_TIMEOUT_MS: integer(
    search,
    "Time limit for one request; a bulk request also ends before its lease does.",
    { min: 100, max: 300_000, default: 10_000 },
  ),
  ENABLE_SEARCH_PROJECTION: flag(
    search,
    "When off, search returns empty pages and queries neither Elasticsearch nor Postgres.",
    true,
  ),
  EMBEDDED_ELASTIC_PORT: port(search, "Port of the embedded engine, on 127.0.0.1.", 19_200),

  API_HOST: text(api, "Address that the API listens on.", { default: "127.0.0.1" }),
  API_PORT: port(api, "Port of the API; 0 picks any free port.", 8000),
  DEV_USER_ID: text(api, "The user that owns everything that is written: there is no login yet.", {
    default: "550e8400-e29b-41d4-a716-446655440000",
    pattern: "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
  }),
  API_MAX_BODY_BYTES: integer(api, "A larger request body is refused with 413.", {
    min: 1024,
    max: 104_857_600,
    default: 1_048_576,
  }),

  CHRONICLE_BLOCK_UPDATED_DEDUPE_SECONDS: integer(
    chronicle,
    "Changes to one block by one actor within this window become one chronicle event; 0 records every change.",
    { min: 0, max: 86_400, default: 10 },
  ),
  CHRONICLE_PROJECTION_VERSION: integer(
    chronicle,
    "Written to every entry that this worker projects (OUTBOX_PROJECTION_VERSION is also accepted).",
    { min: 1, max: 2_147_483_647, default: 1, alias: "OUTBOX_PROJECTION_VERSION" },
  ),

  LOG_LEVEL: choice(
    log,
    "Failures, retries, reclaims and start-up facts are logged at warn or above, so no level up to warn hides them. While a target is down, at most one line a second is logged; the rest is at debug.",
    ["trace", "debug", "info", "warn", "error", "fatal"],
    { default: "info", synonyms: { warning: "warn", critical: "fatal" } },
  ),
  LOG_JSON: Type.Optional(flag(log, "JSON lines. Unset: pretty on a terminal, JSON elsewhere.")),

  WORDLOOM_TRACING_ENABLED: flag(trace, "Create and export spans.", false),
  OTEL_SDK_DISABLED: flag(trace, "Turns tracing off, whatever WORDLOOM_TRACING_ENABLED says.", false),
  OTEL_SERVICE_NAME: Type.Optional(
    text(trace, "Unset: wordloom-api, wordloom-search-outbox-worker, wordloom-chronicle-outbox-worker."),
  ),
  OTEL_EXPORTER_OTLP_ENDPOINT: Type.Optional(
    formatted(trace, "Collector, as http://host:4318; /v1/traces is appended.", "url"),
  ),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: Type.Optional(
    formatted(trace, "Collector URL including its path, used as given.", "url"),
  ),
  OTEL_EXPORTER_OTLP_HEADERS: Type.Optional(formatted(trace, "Headers for the collector, as k=v,k=v.", "headers")),
  OTEL_EXPORTER_OTLP_PROTOCOL: choice(
    trace,
    "Encoding over HTTP. JSON takes twice the bytes and more CPU.",
    ["http/protobuf", "http/json"],
    { default: "http/protobuf" },
  ),
  OTEL_TRACES_SAMPLER: choice(
    trace,
    "Which traces are kept.",
    [
      "always_on",
      "always_off",
      "traceidratio",
      "parentbased_always_on",
      "parentbased_always_off",
      "parentbased_traceidratio",
    ],
    { default: "parentbased_always_on" },
  ),
  OTEL_TRACES_SAMPLER_ARG: decimal(trace, "The fraction of traces that the ratio samplers keep.", {
    min: 0,
    max: 1,
    default: 1,
  }),
  EMBEDDED_COLLECTOR_PORT: port(
    trace,
    "Port of the embedded trace store for OTLP/HTTP, on 127.0.0.1; 0 picks any free port.",
    4318,
  ),
  EMBEDDED_COLLECTOR_QUERY_PORT: port(
    trace,
    "Port of the embedded trace store for its pages and Jaeger's query API; 0 picks any free port.",
    16_686,
  ),
  EMBEDDED_COLLECTOR_MAX_SPANS: integer(
    trace,
    "Maximum number of spans in the embedded trace store; the oldest are dropped.",
    { min: 1, max: 999_999_999, default: 200_000 },
  ),

  OUTBOX_WORKER_ID: Type.Optional(
    text(queue, "Name of this worker on rows, spans and logs. Unset: hostname:pid.", {
      pattern: "^[\\x21-\\x7e]{1,100}$",
    }),
  ),
  OUTBOX_BULK_SIZE: integer(queue, "Events claimed and sent at once (OUTBOX_BATCH_SIZE is also accepted).", {
    min: 1,
    max: 10_000,
    default: 100,
    alias: "OUTBOX_BATCH_SIZE",
  }),
  OUTBOX_BULK_MAX_BYTES: integer(queue, "Maximum size of a bulk request; larger batches are split.", {
    min: 1024,
    max: 104_857_600,
    default: 5_242_880,
  }),
  OUTBOX_CONCURRENCY: integer(
    queue,
    "Batches in flight at once, per projection and process; lowered automatically while the target is overloaded.",
    { min: 1, max: 64, default: 2 },
  ),
  OUTBOX_POLL_INTERVAL_SECONDS: decimal(queue, "How often an idle worker polls for work it was not notified of.", {
    min: 0.01,
    max: 3600,
    default: 1,
  }),
  OUTBOX_POLL_INTERVAL_MS: Type.Optional(
    integer(queue, "The same in milliseconds; takes precedence.", { min: 10, max: 3_600_000 }),
  ),
  OUTBOX_LEASE_SECONDS: decimal(queue, "How long a claimed batch belongs to its worker before others may take it.", {
    min: 0.1,
    max: 3600,
    default: 30,
  }),
  OUTBOX_MAX_PROCESSING_SECONDS: Type.Optional(
    decimal(
      queue,
      "Maximum time a batch may be worked on, lease renewals included. Unset: the larger of 300 and 10 leases.",
      { min: 0.1, max: 86_400 },
    ),
  ),
  OUTBOX_MAX_ATTEMPTS: integer(
    queue,
    "Failures of an event before it is failed for good. Outages of the target do not count.",
    { min: 1, max: 1000, default: 10 },
  ),
  OUTBOX_TERMINAL_ON_TRANSIENT: flag(queue, "Outages of the target count towards OUTBOX_MAX_ATTEMPTS.", false),
  OUTBOX_BASE_BACKOFF_SECONDS: decimal(queue, "Delay before the first retry; doubles with every attempt.", {
    min: 0.001,
    max: 3600,
    default: 0.5,
  }),
  OUTBOX_MAX_BACKOFF_SECONDS: decimal(queue, "Maximum delay before a retry; never above 10 for the chronicle.", {
    min: 0.001,
    max: 86_400,
    default: 30,
  }),
  OUTBOX_RECLAIM_INTERVAL_SECONDS: decimal(
    queue,
    "How often to look for expired leases; 0 leaves it to other workers.",
    { min: 0, max: 3600, default: 5 },
  ),
  OUTBOX_SHUTDOWN_GRACE_SECONDS: decimal(queue, "How long a stopping process may take to finish the work in hand.", {
    min: 0,
    max: 3600,
    default: 25,
  }),
  OUTBOX_DONE_RETENTION_HOURS: decimal(queue, "How long processed events and tombstones are kept.", {
    min: 0.001,
    max: 87_600,
    default: 168,
  }),
  OUTBOX_RUN_SECONDS: decimal(queue, "The worker stops by itself after this time; 0 means never.", {
    min: 0,
    max: 604_800,
    default: 0,
  }),

  OUTBOX_METRICS_PORT: port(health, "Prometheus metrics of the worker; 0 takes any free port.", 9108),
  OUTBOX_HTTP_PORT: Type.Optional(
    port(health, "/livez, /readyz and /healthz of the worker. Unset: OUTBOX_METRICS_PORT + 2."),
  ),
  OUTBOX_HEALTH_MAX_SILENCE_SECONDS: decimal(
    health,
    "A worker loop that has not completed a turn for this long counts as dead. An idle one turns once a second.",
    { min: 2, max: 3600, default: 10 },
  ),
  OUTBOX_DB_PING_INTERVAL_SECONDS: decimal(health, "How often Postgres is pinged.", {
    min: 0.1,
    max: 3600,
    default: 1,
  }),
  OUTBOX_DB_PING_TIMEOUT_SECONDS: decimal(health, "Timeout of that ping.", { min: 0.1, max: 60, default: 1 }),
  OUTBOX_DB_PING_FAILS_BEFORE_DRAINING: integer(health, "Consecutive failed pings before the worker stops claiming.", {
    min: 1,
    max: 1000,
    default: 3,
  }),
  OUTBOX_REQUIRE_ES_READY: flag(health, "/readyz also requires Elasticsearch.", false),
  OUTBOX_ES_PING_INTERVAL_SECONDS: decimal(health, "How often Elasticsearch is pinged.", {
    min: 0.1,
    max: 3600,
    default: 1,
  }),
  OUTBOX_ES_PING_TIMEOUT_SECONDS: decimal(health, "Timeout of that ping.", { min: 0.1, max: 60, default: 1 }),

  OUTBOX_EXPERIMENT_ES_429_RATIO: decimal(lab, "Share of items answered with an injected 429.", {
    min: 0,
    max: 1,
    default: 0,
  }),
  OUTBOX_EXPERIMENT_ES_429_EVERY_N: integer(
    lab,
    "Every n-th item is answered with an injected 429; takes precedence over the ratio; 0 turns it off.",
    { min: 0, max: 1_000_000, default: 0 },
  ),
  OUTBOX_EXPERIMENT_ES_429_OPS: text(lab, "Which ops are affected: all, or a list of upsert, delete.", {
    default: "all",
    pattern: "^(all|(upsert|delete)(,(upsert|delete))*)$",
  }),
  OUTBOX_EXPERIMENT_ES_429_SEED: integer(lab, "Random seed for the ratio.", { min: 0, max: 2_147_483_647, default: 1 }),
  OUTBOX_EXPERIMENT_ES_BULK_PARTIAL: flag(
    lab,
    "Rewrites the first item of a bulk response with two or more items to a failure.",
    false,
  ),
  OUTBOX_EXPERIMENT_ES_BULK_PARTIAL_STATUS: integer(lab, "The status of that failure.", {
    min: 400,
    max: 599,
    default: 400,
  }),
  OUTBOX_EXPERIMENT_BREAK_CLAIM: flag(
    lab,
    "The claim selects without a lock, waits, then updates: two workers claim the same rows, and the fence keeps the result right.",
    false,
  ),
  OUTBOX_EXPERIMENT_BREAK_CLAIM_SLEEP_SECONDS: decimal(lab, "Length of that wait.", { min: 0, max: 60, default: 0.2 }),
  OUTBOX_EXPERIMENT_PROCESS_SLEEP_SECONDS: decimal(lab, "A wait between claiming a batch and sending it.", {
    min: 0,
    max: 3600,
    default: 0,
  }),
  OUTBOX_FAULT_INJECT_KIND: Type.Optional(
    choice(lab, "How events of OUTBOX_FAULT_INJECT_ENTITY_ID fail.", ["transient", "deterministic"]),
  ),
  OUTBOX_FAULT_INJECT_ENTITY_ID: Type.Optional(text(lab, "The entity whose events fail.")),
});

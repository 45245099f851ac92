import { Client, HttpConnection } from "@elastic/elasticsearch";
import type { TSchema } from "@sinclair/typebox";
import { readConfig } from "../src/config.ts";
import { parseDatabaseUrl } from "../src/db/address.ts";
import { openDatabase } from "../src/db/client.ts";
import { problems } from "../src/errors.ts";
import { createServer, type Route } from "../src/http/server.ts";
import { openWakeUps } from "../src/outbox/wake.ts";
import { openLog } from "../src/telemetry/log.ts";
import { openMetrics } from "../src/telemetry/metrics.ts";
import { apiSignals } from "../src/telemetry/request-signals.ts";
import { openTracing } from "../src/telemetry/tracing.ts";

/** The routes of the API as served; no connection is opened. */
function routes(): readonly Route[] {
  const config = readConfig({});
  const database = openDatabase(parseDatabaseUrl("postgresql://nobody@localhost/nothing"), {
    max: 1,
    applicationName: "docs",
    statementTimeoutMs: 1000,
    prepare: true,
  });
  const sinks = {
    log: openLog(config, "docs", { write: () => undefined }),
    metrics: openMetrics("api"),
    tracing: openTracing(config, "api", "docs", () => undefined),
  };
  return createServer({
    db: database.db,
    config,
    search: { client: new Client({ node: "http://localhost:1", Connection: HttpConnection }), index: "nothing" },
    signals: apiSignals(sinks),
    wakeUps: openWakeUps(database),
    readiness: { draining: false },
    metrics: () => new Response(),
  }).routes;
}

function fieldRows(schema: TSchema | undefined, where: string): string[] {
  const required: readonly string[] = schema?.["required"] ?? [];
  const properties: Readonly<Record<string, TSchema>> = schema?.["properties"] ?? {};
  return Object.entries(properties)
    .filter(([name]) => !["cid", "cache_bust"].includes(name))
    .map(
      ([name, { description }]) =>
        `| \`${name}\` | ${where} | ${required.includes(name) ? "yes" : ""} | ${description} |`,
    );
}

function section({ method, path, summary, query, body }: Route): string {
  const rows = [...fieldRows(query, "query"), ...fieldRows(body, "body")];
  const table = ["| Field | In | Required | Accepts |", "|---|---|---|---|", ...rows].join("\n");
  return [`### ${method} ${path}`, summary, ...(rows.length === 0 ? [] : [table])].join("\n\n");
}

const groups: readonly (readonly [title: string, prefix: string])[] = [
  ["Libraries", "/api/v1/libraries"],
  ["Bookshelves", "/api/v1/bookshelves"],
  ["Books", "/api/v1/books"],
  ["Blocks", "/api/v1/blocks"],
  ["Tags", "/api/v1/tags"],
  ["Search", "/api/v1/search"],
  ["Chronicle", "/api/v1/chronicle"],
  ["Process", "/"],
];
const methods = ["POST", "GET", "PATCH", "DELETE"];

const introduction = `# HTTP API

The tables are generated from the routes: \`bun tools/docs.ts\`. There is no login yet: everything belongs to \`DEV_USER_ID\`.

    curl -X POST http://127.0.0.1:8000/api/v1/libraries -d '{"name":"Notes"}'
    curl 'http://127.0.0.1:8000/api/v1/libraries'

- Bodies are JSON, whatever their content type says. Unknown fields are refused, and so are bodies larger than \`API_MAX_BODY_BYTES\`.
- Lists are returned as \`{total, items, limit, offset}\`, with at most \`limit\` items (50 by default) starting at \`offset\`. A search returns \`hits\` instead of \`items\`, 20 by default.
- A PATCH leaves fields that are not given unchanged; null clears a field that may be empty.
- Deleted entities disappear from every response; a second delete is answered with 409. Only a book's chronicle outlives it, and holds none of its text.

## Versions

Every entity has a \`version\` that each write increments; responses with a single entity carry it as \`ETag\`. With \`If-Match\`, PATCH and DELETE apply only to a version that it names, and answer 412
\`VERSION_MISMATCH\` otherwise, so two people who change the same block cannot silently overwrite each other.

    curl -i http://127.0.0.1:8000/api/v1/blocks/$BLOCK                                              # ETag: "3"
    curl -X PATCH http://127.0.0.1:8000/api/v1/blocks/$BLOCK -H 'If-Match: "3"' -d '{"content":"…"}'

## Request ids

Every response has an \`X-Request-Id\`: the one sent with the request (as a header, or as \`cid\` in the query), or a new one. It appears as \`correlation_id\` in the request's log lines, span
and chronicle entries. \`cache_bust\` in a query is ignored.

## Errors

Every response other than 2xx is \`application/problem+json\` (RFC 9457) with \`code\`, \`detail\` and \`correlation_id\`; for an invalid request also \`errors\`: where, and what was expected.
Nothing from the request is echoed. 503 comes with \`Retry-After\`.`;

function refusals(): string {
  const rows = Object.entries(problems).map(([code, [status, title]]) => `| \`${code}\` | ${status} | ${title} |`);
  return ["| Code | Status | Meaning |", "|---|---|---|", ...rows].join("\n");
}

/** docs/api.md. */
export function apiPage(): string {
  const left = new Set(routes());
  const parts = [introduction, refusals()];
  for (const [title, prefix] of groups) {
    const group = [...left].filter(({ path }) => path.startsWith(prefix));
    for (const route of group) left.delete(route);
    const sorted = group.toSorted(
      (a, b) => a.path.localeCompare(b.path) || methods.indexOf(a.method) - methods.indexOf(b.method),
    );
    parts.push(`## ${title}`, ...sorted.map(section));
  }
  return `${parts.join("\n\n")}\n`;
}

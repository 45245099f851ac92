/** Comments, strings, identifiers and words, and whatever else stands alone. */
const token = /--[^\n]*|\/\*[\s\S]*?\*\/|'(?:[^']|'')*'|"(?:[^"]|"")*"|[A-Za-z_][\w.]*|\S/g;
const commonTable =
  /(?:\bwith(?:\s+recursive)?|,)\s+"?(\w+)"?(?:\s*\([^()]*\))?\s+as\s+(?:(?:not\s+)?materialized\s+)?\(/gi;
const operations = new Set(["SELECT", "INSERT", "UPDATE", "DELETE"]);
const isName = (text: string) => /^["A-Za-z_]/.test(text);
const longest = 255;

function summarize(text: string): string {
  const own = new Set([...text.matchAll(commonTable)].map(([, name]) => name));
  const tokens = [...text.matchAll(token)].map(([t]) => t).filter((t) => !/^(?:--|\/\*)/.test(t));
  const parts: { readonly operation: string; readonly tables: Set<string> }[] = [];
  let called: string | undefined;
  for (const [i, at] of tokens.entries()) {
    const word = at.toUpperCase();
    const [before = "", next = "", after = ""] = [tokens[i - 1]?.toUpperCase(), tokens[i + 1], tokens[i + 2]];
    // FOR UPDATE, FOR NO KEY UPDATE and ON CONFLICT DO UPDATE are no operations of their own.
    const operates = operations.has(word) && !(word === "UPDATE" && /^(?:FOR|KEY|DO)$/.test(before));
    if (operates) parts.push({ operation: word, tables: new Set() });
    if (word === "SELECT" && isName(next) && after === "(") called ??= next;
    // IS DISTINCT FROM and EXTRACT (EPOCH FROM …) lead to no table.
    const leads =
      /^(?:INTO|JOIN)$/.test(word) ||
      (word === "UPDATE" && operates) ||
      (word === "FROM" && !/^(?:DISTINCT|EPOCH)$/.test(before));
    const table = next.replaceAll('"', "");
    const isTable = isName(next) && (after !== "(" || word === "INTO") && !own.has(table);
    if (leads && isTable) parts.at(-1)?.tables.add(table);
  }
  const named = parts.filter(({ tables }) => tables.size > 0);
  const [first] = parts;
  if (named.length === 0) return `${first?.operation ?? tokens[0]?.toUpperCase() ?? ""} ${called ?? ""}`.trim();
  const said = new Set(named.map(({ operation, tables }) => [operation, ...tables].join(" ")));
  return [...said].join(" ").slice(0, longest);
}

const known = new Map<string, string>();
const mostKnown = 1000;

/**
 * What a statement does to which tables, in the order of its text: `INSERT tags`, `SELECT books libraries` (OpenTelemetry's db.query.summary). Parts without a table are left
 * out, unless there are no others: `SELECT pg_notify`, `COMMIT`. Reads the SQL that we write, not all that there is.
 */
export function summarizeQuery(text: string): string {
  let summary = known.get(text);
  if (summary === undefined) {
    summary = summarize(text);
    if (known.size >= mostKnown) known.clear();
    known.set(text, summary);
  }
  return summary;
}

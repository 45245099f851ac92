import type postgres from "postgres";
import { asEachCaller } from "./callers.ts";
import type { Turns } from "./turns.ts";

/** Called when a statement is sent. Returns a callback for its end, with the error if it failed, or undefined if nobody wants to know. */
export type OnStatement = (text: string) => ((error?: unknown) => void) | undefined;

export type StatementOptions = {
  /** Parsing and planning the same few statements again would cost a third of a write. */
  readonly prepare: boolean;
  readonly onStatement?: OnStatement | undefined;
};

type Parameters = never[];
type Begin = <T>(work: (tx: postgres.TransactionSql) => Promise<T>) => Promise<T>;

/** The client with other ways to send and to begin; the rest of it is what it was. */
function withOwn<T extends object>(client: T, own: { readonly unsafe: unknown; readonly begin?: Begin }): T {
  return new Proxy(client, {
    get: (target, key) => (Object.hasOwn(own, key) ? Reflect.get(own, key) : Reflect.get(target, key)) as unknown,
  });
}

/** A statement that the driver sends once it is awaited. */
const statement = (sql: postgres.ISql, prepare: boolean, text: string, parameters: Parameters) =>
  sql.unsafe(text, parameters, { prepare: prepare && parameters.length > 0 });

/** Has `onStatement` hear of a statement that is sent now, once for each on whose behalf it is. */
function tell(query: PromiseLike<unknown>, onStatement: OnStatement | undefined, text: string): void {
  if (onStatement === undefined) return;
  for (const ended of asEachCaller(() => onStatement(text))) if (ended) query.then(() => ended(), ended);
}

function statementsOf(
  tx: postgres.TransactionSql,
  { prepare, onStatement }: StatementOptions,
): postgres.TransactionSql {
  const unsafe = (text: string, parameters: Parameters = []) => {
    const query = statement(tx, prepare, text, parameters);
    tell(query, onStatement, text);
    return query;
  };
  return withOwn(tx, { unsafe });
}

/** BEGIN and COMMIT or ROLLBACK, reported as statements. The driver sends them itself; each begins where its caller had to wait for it. */
async function beginTold<T>(
  begin: Begin,
  onStatement: OnStatement,
  work: (tx: postgres.TransactionSql) => Promise<T>,
): Promise<T> {
  let underWay = onStatement("begin");
  const next = (text: string | undefined, error?: unknown) => {
    underWay?.(error);
    underWay = text === undefined ? undefined : onStatement(text);
  };
  let over = false;
  let workFailed: { readonly with: unknown } | undefined;
  try {
    const result = await begin(async (tx) => {
      next(undefined);
      try {
        const done = await work(tx);
        next("commit");
        return done;
      } catch (error) {
        workFailed = { with: error };
        // The connection may be lost, and the transaction with it, before its work has noticed.
        if (!over) next("rollback");
        throw error;
      }
    });
    next(undefined);
    return result;
  } catch (error) {
    next(undefined, workFailed?.with === error ? undefined : error);
    throw error;
  } finally {
    over = true;
  }
}

/**
 * The client as drizzle uses it: what needs a connection takes its turn, statements are prepared, and `onStatement` hears of each, those of transactions,
 * BEGIN and COMMIT included.
 */
export function inTurns(client: postgres.Sql, turns: Turns, options: StatementOptions): postgres.Sql {
  const { onStatement } = options;
  // oxlint-disable-next-line typescript/unbound-method -- a closure of the driver, it uses no `this`
  const driverBegin = client.begin as unknown as Begin;
  const begin: Begin = (work) => {
    const inside = (tx: postgres.TransactionSql) => work(statementsOf(tx, options));
    return turns.take(() => (onStatement ? beginTold(driverBegin, onStatement, inside) : driverBegin(inside)));
  };
  const unsafe = (text: string, parameters: Parameters = []) => {
    const query = statement(client, options.prepare, text, parameters);
    const rows = turns.take(async () => {
      tell(query, onStatement, text);
      return await query;
    });
    // Asked for in the same breath; the driver sends nothing before the next.
    const values = () => {
      void query.values();
      return rows;
    };
    return Object.assign(rows, { values });
  };
  return withOwn(client, { unsafe, begin });
}

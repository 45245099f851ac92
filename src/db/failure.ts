import postgres from "postgres";
import { causeCodeOf, codeOf } from "../errors.ts";
import type { DatabaseReason } from "../events.ts";
import { type DatabaseAddress, describeAddress } from "./address.ts";

/**
 * The SQLSTATE or system code of a failure, undefined when it has none; drizzle wraps the driver's error in `cause`. For failures of statements: a code of the system may come
 * from elsewhere too.
 */
export const databaseErrorCode = causeCodeOf;

/** Others hold the rows: serialization_failure, deadlock_detected, lock_not_available, query_canceled (statement_timeout). Trying again is right. */
export function isContention(error: unknown): boolean {
  return ["40001", "40P01", "55P03", "57014"].includes(databaseErrorCode(error) ?? "");
}

/**
 * The server could not be reached, went away, is starting or stopping, has no connection to give, or takes no writes (read_only_sql_transaction: a standby, until it is
 * promoted or somebody else answers in its place). Waiting is right.
 */
export function isUnavailable(error: unknown): boolean {
  const code = databaseErrorCode(error) ?? "";
  return (
    /^(08|25006|57P0|53[0-9])/.test(code) ||
    [
      "CONNECTION_CLOSED",
      "CONNECTION_ENDED",
      "CONNECTION_DESTROYED",
      "CONNECT_TIMEOUT",
      "ECONNREFUSED",
      "ECONNRESET",
      "ENOENT",
      "ENOTFOUND",
      "EAI_AGAIN",
      "EPIPE",
      "ETIMEDOUT",
      "EHOSTUNREACH",
      "ENETUNREACH",
      "ANSWER_TIMEOUT",
      "POOL_TIMEOUT",
    ].includes(code)
  );
}

/** Why a step of a worker failed, as events and metrics name it. */
export function failureReason(error: unknown): DatabaseReason {
  if (isContention(error)) return "db_contention";
  return isUnavailable(error) ? "db_unavailable" : "unknown_exception";
}

/** The statement itself is refused, whatever its values: a table, a column or a right is missing (class 42). No event is to blame for that, and mending it helps all. */
export const isMisfit = (error: unknown): boolean => databaseErrorCode(error)?.startsWith("42") === true;

/** No connection is available: all of the pool are taken, or all of the server (too_many_connections). */
export function isExhausted(error: unknown): boolean {
  return ["POOL_TIMEOUT", "53300"].includes(databaseErrorCode(error) ?? "");
}

/** Postgres itself rejected the statement: nothing of it was written. An error of the driver or the network leaves open whether a statement has committed. */
export function isRolledBack(error: unknown): boolean {
  if (isUnavailable(error)) return false;
  for (let e: unknown = error; e instanceof Error; e = e.cause) if (e instanceof postgres.PostgresError) return true;
  return false;
}

/** A failure in a few words, for a row and its line. Never the message: Postgres's may quote what was written, and drizzle's holds all that was to be. */
export function nameFailure(error: unknown): string {
  for (let e: unknown = error; e instanceof Error; e = e.cause)
    if (e instanceof postgres.PostgresError) return `SQLSTATE ${e.code}${e.routine ? ` (${e.routine})` : ""}`;
  return databaseErrorCode(error) ?? (error instanceof Error ? error.name : "unknown error");
}

/** Which unique constraint a write ran into, if it did (unique_violation). */
export function violatedConstraint(error: unknown): string | undefined {
  for (let e: unknown = error; e instanceof Error; e = e.cause) {
    if (codeOf(e) === "23505" && "constraint_name" in e && typeof e.constraint_name === "string")
      return e.constraint_name;
  }
  return undefined;
}

/** Whether the code means that a certificate was not accepted: the server's by us, or ours by the server, which then sends an alert. */
export const isUntrusted = (code: string): boolean => /CERT|CRL|UNABLE_TO_VERIFY|_ALERT_/.test(code);

/** Why a command cannot use its database, in one line without secrets. */
export function explainDatabaseError(address: DatabaseAddress, error: unknown): string {
  const where = describeAddress(address);
  const code = databaseErrorCode(error) ?? "unknown error";
  if (code.includes("_ALERT_"))
    return `${where} broke off the TLS handshake (${code}); correct sslcert and sslkey in DATABASE_URL`;
  if (code === "CERT_REVOKED")
    return `${where} presents a certificate that its authority has revoked, according to sslcrl`;
  if (code.includes("CRL"))
    return `${where} presents a certificate that cannot be checked against the lists in sslcrl (${code}); each authority needs a current list`;
  if (isUntrusted(code))
    return `${where} presents a certificate that is not trusted (${code}); name its authority's certificate with sslrootcert in DATABASE_URL, or correct the host`;
  switch (code) {
    case "ECONNREFUSED":
    case "ENOENT":
      return `nothing answers for ${where}; start Postgres or correct DATABASE_URL`;
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return `the host of ${where} is unknown; correct DATABASE_URL`;
    case "CONNECT_TIMEOUT":
    case "ETIMEDOUT":
    case "EHOSTUNREACH":
    case "ENETUNREACH":
      return `${where} does not answer; correct DATABASE_URL or the network`;
    case "CONNECTION_CLOSED":
    case "ECONNRESET":
      return `${where} closed the connection; make sure Postgres is running there, or correct DATABASE_URL`;
    case "25006":
      return `${where} takes no writes; name the primary in DATABASE_URL`;
    case "28P01":
    case "28000":
      return `${where} refuses the user or password; correct DATABASE_URL`;
    case "3D000":
      return `${where} does not exist; create it or correct DATABASE_URL`;
    case "42P01":
      return `${where} lacks a table; run \`wordloom migrate\``;
    case "42501":
      return `${where} does not give this user the privileges it needs; grant them, or correct DATABASE_URL`;
    case "TLS_REFUSED":
      return `${where} does not support TLS, which sslmode requires; correct DATABASE_URL`;
    default:
      // Never the message: drizzle's holds all that was to be written.
      return `${where} failed (${code})`;
  }
}

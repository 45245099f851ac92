/** The failures that a caller is meant to understand. Anything else that is thrown is a bug, and the caller only sees `INTERNAL`. */

/** Every public code, with its HTTP status and the title that problem+json shows (RFC 9457: constant per type). */
export const problems = {
  VALIDATION_ERROR: [422, "The request does not match the schema"],
  MALFORMED_JSON: [400, "The body is not valid JSON"],
  BODY_TOO_LARGE: [413, "The body is too large"],
  ROUTE_NOT_FOUND: [404, "There is nothing at this path"],
  METHOD_NOT_ALLOWED: [405, "This path does not support this method"],
  VERSION_MISMATCH: [412, "The current version is not one that If-Match names"],
  LIBRARY_NOT_FOUND: [404, "There is no such library"],
  LIBRARY_ALREADY_EXISTS: [409, "A library with this name already exists"],
  LIBRARY_ALREADY_DELETED: [409, "The library is already deleted"],
  BOOKSHELF_NOT_FOUND: [404, "There is no such bookshelf"],
  BOOKSHELF_ALREADY_EXISTS: [409, "The library already has a bookshelf with this name"],
  BOOKSHELF_ALREADY_DELETED: [409, "The bookshelf is already deleted"],
  INVALID_MOVE: [422, "A book can only move between bookshelves of its library"],
  BOOK_NOT_FOUND: [404, "There is no such book"],
  BOOK_ALREADY_DELETED: [409, "The book is already deleted"],
  BLOCK_NOT_FOUND: [404, "There is no such block"],
  BLOCK_ALREADY_DELETED: [409, "The block is already deleted"],
  TAG_NOT_FOUND: [404, "There is no such tag"],
  TAG_ALREADY_EXISTS: [409, "A tag with this name already exists"],
  TAG_ALREADY_DELETED: [409, "The tag is already deleted"],
  TAG_INVALID_HIERARCHY: [422, "Tags nest three levels deep at most, and never inside themselves"],
  SEARCH_UNAVAILABLE: [503, "Search is not available at the moment"],
  DATABASE_UNAVAILABLE: [503, "The database is not available at the moment"],
  DATABASE_BUSY: [503, "Another write holds a lock that this one needs; try again"],
  DRAINING: [503, "This process is stopping"],
  INTERNAL: [500, "Something went wrong on our side"],
} as const satisfies Record<string, readonly [status: number, title: string]>;

export type ProblemCode = keyof typeof problems;

/** A named failure, reported to the caller of the API. `message` is for people and never echoes their input. */
export class WordloomError extends Error {
  readonly code: ProblemCode;
  readonly status: number;

  constructor(code: ProblemCode, message: string = problems[code][1], options?: ErrorOptions) {
    super(message, options);
    this.name = "WordloomError";
    this.code = code;
    this.status = problems[code][0];
  }
}

/** The code of a system or library error, such as EADDRINUSE; undefined if it has none. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" && error.code !== ""
    ? error.code
    : undefined;
}

/** The message of an error, or anything else that was thrown, as text. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The code of an error, or of the first of its causes that has one. */
export function causeCodeOf(error: unknown): string | undefined {
  for (let e: unknown = error; e instanceof Error; e = e.cause) {
    const code = codeOf(e);
    if (code !== undefined) return code;
  }
  return undefined;
}

/** Exit codes of the command line. */
export const exitCodes = { ok: 0, failed: 1, usage: 2, unreachable: 4, refused: 5, unproven: 10 } as const;

/** A command that cannot go on. `message` is one line that names the variable or file to change. */
export class CommandError extends Error {
  readonly exitCode: (typeof exitCodes)[keyof typeof exitCodes];

  constructor(kind: Exclude<keyof typeof exitCodes, "ok">, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "CommandError";
    this.exitCode = exitCodes[kind];
  }
}

import { WordloomError } from "../errors.ts";

const tooLarge = () => new WordloomError("BODY_TOO_LARGE");

/** The body's bytes, never more than `most` of them in memory. Throws BODY_TOO_LARGE. */
async function readBytes(request: Request, most: number): Promise<Uint8Array> {
  const length = request.headers.get("content-length");
  if (Number(length ?? 0) > most) throw tooLarge();
  // An announced length is the length: HTTP frames by it. Reading at once costs half of reading chunk by chunk.
  if (length !== null && !request.headers.has("transfer-encoding")) return await request.bytes();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body ?? []) {
    size += chunk.byteLength;
    if (size > most) throw tooLarge();
    chunks.push(chunk);
  }
  return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
}

/** Nobody nests deeper; the time for checks and answers grows with the square of the depth, until the stack overflows. */
const deepest = 64;

/** Why a value cannot be worked on, though it is JSON; undefined when it can. */
function flawOf(value: unknown, depth = 0): string | undefined {
  // It would be kept as null, or as another number (RFC 7493 §2.2).
  if (typeof value === "number" && Math.abs(value) > Number.MAX_SAFE_INTEGER)
    return `The body holds a number beyond ${Number.MAX_SAFE_INTEGER}, which JSON does not keep exactly; send it as a string`;
  if (typeof value !== "object" || value === null) return undefined;
  if (depth === deepest) return `The body is nested in more than ${deepest} levels`;
  for (const inner of Object.values(value)) {
    const flaw = flawOf(inner, depth + 1);
    if (flaw !== undefined) return flaw;
  }
  return undefined;
}

/**
 * Reads a request's body as JSON, whatever its content type says: `curl -d` calls everything a form.
 * Throws BODY_TOO_LARGE above `most` bytes, and MALFORMED_JSON for what is not JSON in UTF-8, or more than can be worked on.
 */
export async function readJson(request: Request, most: number): Promise<unknown> {
  const bytes = await readBytes(request, most);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new WordloomError("MALFORMED_JSON", undefined, { cause: error });
  }
  const flaw = flawOf(value);
  if (flaw !== undefined) throw new WordloomError("MALFORMED_JSON", flaw);
  return value;
}

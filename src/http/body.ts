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

/**
 * Reads a request's body as JSON, whatever its content type says: `curl -d` calls everything a form.
 * Throws BODY_TOO_LARGE above `most` bytes, and MALFORMED_JSON for what is not JSON in UTF-8.
 */
export async function readJson(request: Request, most: number): Promise<unknown> {
  const bytes = await readBytes(request, most);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new WordloomError("MALFORMED_JSON", undefined, { cause: error });
  }
}

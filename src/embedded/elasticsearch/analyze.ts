import { analyzers } from "./analysis/cjk.ts";
import { illegalArgument, invalidRequest, Refusal } from "./errors.ts";
import type { Json, JsonObject, Reply } from "./json.ts";
import { type Mapping, show } from "./mapping.ts";

/** Gap between the values of an array: enough positions that no phrase spans it. */
const positionGap = 100;

/** GET /_analyze: the words that an analyzer, or a field's, makes of a text or of several. */
export function analyze(mapping: Mapping | undefined, body: JsonObject): Reply {
  const { analyzer, field, text, ...rest } = body;
  const [other] = Object.keys(rest);
  if (other !== undefined)
    throw new Refusal(400, "x_content_parse_exception", `[1:1] [analyze_request] unknown field [${other}]`);
  const texts = (Array.isArray(text) ? text : [text]).filter(
    (item: Json | undefined) => item !== undefined && item !== null,
  );
  if (texts.length === 0) throw invalidRequest("text is missing");
  const name = show(analyzer ?? mapping?.fields.get(show(field ?? null))?.analyzer ?? "default");
  const split = analyzers.get(name);
  if (split === undefined) throw illegalArgument(`failed to find global analyzer [${name}]`);
  let offset = 0;
  let position = 0;
  const tokens = texts
    .map((one) => show(one ?? ""))
    .flatMap((one) => {
      const found = split(one).map(({ token, start, end, type, position: at }) => ({
        token,
        start_offset: offset + start,
        end_offset: offset + end,
        type,
        position: position + at,
      }));
      offset += one.length + 1;
      position = (found.at(-1)?.position ?? position - 1) + 1 + positionGap;
      return found;
    });
  return { tokens };
}

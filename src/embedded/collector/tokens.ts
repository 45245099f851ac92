import type { Resource, Scope, Span } from "./otlp.ts";
import { eventTags, resourceTags, spanTags, type Tag, tagText } from "./tags.ts";

/**
 * What a span can be found by, as tokens of the full-text index: one for its operation, one for its service and one for each tag, all bound to the service, since
 * a search is for a service's spans. A token is a hash of 64 bits: among ten million of them two are the same with a chance of one in 400,000.
 */
type Token = string;

/** Two hashes of 32 bits: one of 64 would be a bigint, and those take three times as long to write down. */
function token(service: string, text: string): Token {
  const bound = `${service.length} ${service}${text}`;
  return Bun.hash.murmur32v3(bound).toString(36) + Bun.hash.xxHash32(bound).toString(36).padStart(7, "0");
}

export const serviceToken = (service: string): Token => token(service, "service");
export const operationToken = (service: string, operation: string): Token => token(service, `operation ${operation}`);
/** The key's length keeps it apart from the value, whatever is in them. */
export const tagToken = (service: string, key: string, text: string): Token =>
  token(service, `tag ${key.length} ${key}${text}`);

/** A function from a span of that resource and scope to its tokens. Most tags of one request are the same from span to span: it remembers theirs. */
export function spanTokens(service: string, resource: Resource, scope: Scope): (span: Span) => string {
  const known = new Map<string, Token>();
  const ofTag = (tag: Tag): Token => {
    const text = tagText(tag);
    const identity = `${tag.key.length} ${tag.key}${text}`;
    const made = known.get(identity) ?? tagToken(service, tag.key, text);
    known.set(identity, made);
    return made;
  };
  const shared = [serviceToken(service), ...resourceTags(resource).map(ofTag)];
  return (span) => {
    const tags = [...spanTags(span, scope), ...(span.events ?? []).flatMap(eventTags)];
    return [...shared, operationToken(service, span.name), ...tags.map(ofTag)].join(" ");
  };
}

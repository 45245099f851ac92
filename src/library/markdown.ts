import { getDefaults, Lexer, type MarkedToken, type Token, Tokenizer } from "marked";
import type { blockTypes } from "../db/schema.ts";

/** A block as a file has it, without identity. */
export type MarkdownBlock = {
  readonly type: (typeof blockTypes)[number];
  /** The raw Markdown, without the blank lines around it. */
  readonly content: string;
  readonly headingLevel: number | null;
};

export type MarkdownDocument = {
  /** The text of the first heading, if there is one. */
  readonly title: string | undefined;
  readonly blocks: readonly MarkdownBlock[];
};

const frontMatter = /^---[ \t]*\r?\n[\s\S]*?\n---[ \t]*(?:\r?\n|$)/;

const trimmed = (raw: string) => raw.replace(/^(?:[ \t]*\n)+/, "").trimEnd();

/** The words of inline Markdown, without its marks. */
function plainText(tokens: readonly Token[]): string {
  return tokens
    .map((t) => {
      if (t.type === "html") return "";
      const inner: unknown = "tokens" in t ? t.tokens : undefined;
      if (Array.isArray(inner) && inner.length > 0) return plainText(inner as Token[]);
      return "text" in t && typeof t.text === "string" ? t.text : t.type === "br" ? " " : "";
    })
    .join("");
}

/**
 * Lines of a paragraph at most; a longer one becomes several. Beyond some 40,000 the expression for paragraphs gives up, the rest is tried again line by line, and a log of
 * 50,000 lines takes more than a minute.
 */
const longestParagraph = 2000;
/** The same of a heading that is underlined: what looks for its line takes a time that grows with the square of what stands above it. */
const longestHeading = 100;

function firstLines(text: string, count: number): string {
  let end = -1;
  for (let lines = 0; lines < count; lines += 1) {
    end = text.indexOf("\n", end + 1);
    if (end === -1) return text;
  }
  return text.slice(0, end + 1);
}

class LongTexts extends Tokenizer {
  override paragraph(src: string) {
    return super.paragraph(firstLines(src, longestParagraph));
  }
  override lheading(src: string) {
    return super.lheading(firstLines(src, longestHeading));
  }
}

/** Of what is inside of blocks only this much is looked at: it takes a time that grows with the square of it. */
const longestInline = 2000;

function typeOf(token: MarkedToken, inside: (text: string) => readonly Token[]): MarkdownBlock["type"] | undefined {
  switch (token.type) {
    case "space":
    case "def":
      return undefined;
    case "heading":
    case "code":
    case "table":
      return token.type;
    case "hr":
      return "divider";
    case "blockquote":
      return "quote";
    case "list":
      return token.items.some((item) => item.task) ? "todo_list" : "list";
    case "paragraph":
      return token.text.startsWith("![") && inside(token.text).every((t) => t.type === "image") ? "image" : "text";
    default:
      return "text";
  }
}

/** Cuts Markdown (GFM) into one block per top-level element. Front matter is one text block. Throws a RangeError for what is nested too deeply. */
export function readMarkdown(text: string): MarkdownDocument {
  const blocks: MarkdownBlock[] = [];
  const matter = frontMatter.exec(text)?.[0] ?? "";
  if (matter !== "") blocks.push({ type: "text", content: trimmed(matter), headingLevel: null });
  let title: string | undefined;
  const lexer = new Lexer({ ...getDefaults(), tokenizer: new LongTexts() });
  const inside = (words: string) => lexer.inlineTokens(words.slice(0, longestInline));
  for (const token of lexer.blockTokens(text.slice(matter.length).replaceAll(/\r\n?/g, "\n")) as MarkedToken[]) {
    const type = typeOf(token, inside);
    const content = trimmed(token.raw);
    if (type === undefined || content === "") continue;
    const headingLevel = token.type === "heading" ? token.depth : null;
    if (token.type === "heading") title ??= plainText(inside(token.text)).trim() || undefined;
    blocks.push({ type, content, headingLevel });
  }
  return { title, blocks };
}

import { lexer, type MarkedToken, type Token } from "marked";
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

function typeOf(token: MarkedToken): MarkdownBlock["type"] | undefined {
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
      return token.tokens.length > 0 && token.tokens.every((t) => t.type === "image") ? "image" : "text";
    default:
      return "text";
  }
}

/** Cuts Markdown (GFM) into one block per top-level element. Front matter is one text block. Never throws: every text is Markdown. */
export function readMarkdown(text: string): MarkdownDocument {
  const blocks: MarkdownBlock[] = [];
  const matter = frontMatter.exec(text)?.[0] ?? "";
  if (matter !== "") blocks.push({ type: "text", content: trimmed(matter), headingLevel: null });
  let title: string | undefined;
  for (const token of lexer(text.slice(matter.length)) as MarkedToken[]) {
    const type = typeOf(token);
    const content = trimmed(token.raw);
    if (type === undefined || content === "") continue;
    const headingLevel = token.type === "heading" ? token.depth : null;
    if (token.type === "heading") title ??= plainText(token.tokens).trim() || undefined;
    blocks.push({ type, content, headingLevel });
  }
  return { title, blocks };
}

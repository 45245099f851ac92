/** Text that is HTML already. Only `html` makes it. */
export class Html {
  readonly #text: string;
  constructor(text: string) {
    this.#text = text;
  }
  toString(): string {
    return this.#text;
  }
}

type Part = Html | string | number | null | readonly Part[];

/** HTML with everything escaped that is put in, but HTML itself; null puts in nothing. */
export const html = (texts: TemplateStringsArray, ...parts: readonly Part[]): Html =>
  new Html(texts.map((text, at) => text + render(parts[at] ?? null)).join(""));

function render(part: Part): string {
  if (part === null) return "";
  if (part instanceof Html) return part.toString();
  return typeof part === "object" ? part.map(render).join("") : Bun.escapeHTML(String(part));
}

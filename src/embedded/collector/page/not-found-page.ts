import { html } from "./html.ts";
import { layOutPage } from "./layout.ts";

export const notFoundPage = (traceId: string | undefined): string =>
  layOutPage(
    "Not found",
    traceId === undefined
      ? html`<h1>There is no such page</h1>`
      : html`<h1>This trace is not held here</h1>
<p>No span of <code>${traceId}</code> has come, or they were the oldest and made room. The exporter sends every half second: reload in a moment.</p>`,
  );

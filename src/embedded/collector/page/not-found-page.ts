import { html } from "./html.ts";
import { layOutPage } from "./layout.ts";

export const notFoundPage = (traceId: string | undefined): string =>
  layOutPage(
    "Not found",
    traceId === undefined
      ? html`<h1>There is no such page</h1>`
      : html`<h1>This trace is not stored here</h1>
<p>No span of <code>${traceId}</code> has arrived, or its spans were dropped as the oldest. The exporter sends every half second: reload in a moment.</p>`,
  );

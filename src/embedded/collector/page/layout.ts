import { type Html, html } from "./html.ts";

/** The frame of every page. */
export const layOutPage = (title: string, main: Html): string =>
  html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title} · Wordloom traces</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/assets/style.css">
<script src="/assets/page.js" type="module"></script>
</head>
<body>
<header><a href="/">Wordloom traces</a></header>
<main>
${main}
</main>
</body>
</html>
`.toString();

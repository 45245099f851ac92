/** What the trace page does beyond being read: filter, keys, opening the span that the address names. Runs in the browser; without it everything can be read. */

const spans = [...document.querySelectorAll<HTMLDetailsElement>("details.span")];
const filter = document.querySelector<HTMLInputElement>("#filter");
const errorsOnly = document.querySelector<HTMLInputElement>("#errors-only");
const shown = document.querySelector<HTMLElement>("#shown");

function apply(): void {
  const wanted = filter?.value.trim().toLowerCase() ?? "";
  let count = 0;
  for (const span of spans) {
    const fits =
      (wanted === "" || (span.textContent ?? "").toLowerCase().includes(wanted)) &&
      (errorsOnly?.checked !== true || span.classList.contains("error"));
    span.hidden = !fits;
    if (fits) count += 1;
  }
  if (shown) shown.textContent = count === spans.length ? "" : `${count} of ${spans.length} spans shown`;
}

function openNamed(): void {
  const span =
    location.hash === "" ? null : document.querySelector<HTMLDetailsElement>(`#${CSS.escape(location.hash.slice(1))}`);
  if (!span) return;
  span.open = true;
  span.querySelector("summary")?.focus();
}

/** Arrow keys go from span to span; `/` to the filter, `n` to the next error. */
function press(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "Escape" && typing && filter) {
    filter.value = "";
    apply();
    return;
  }
  if (typing) return;
  if (event.key === "/") filter?.focus();
  else if (event.key === "n") move(1, (span) => span.classList.contains("error"));
  else if (event.key === "ArrowDown" || event.key === "j") move(1);
  else if (event.key === "ArrowUp" || event.key === "k") move(-1);
  else return;
  event.preventDefault();
}

function move(step: 1 | -1, wanted: (span: HTMLDetailsElement) => boolean = () => true): void {
  const visible = spans.filter((span) => !span.hidden);
  const at = visible.findIndex((span) => span.contains(document.activeElement));
  const from = at < 0 && step < 0 ? visible.length : at;
  const order = step > 0 ? visible.slice(from + 1) : visible.slice(0, Math.max(0, from)).toReversed();
  order.find(wanted)?.querySelector("summary")?.focus();
}

if (spans.length > 0) {
  document.querySelector<HTMLElement>("#tools")?.removeAttribute("hidden");
  filter?.addEventListener("input", apply);
  errorsOnly?.addEventListener("change", apply);
  document.querySelector("#expand")?.addEventListener("click", () => {
    const open = spans.some((span) => !span.open);
    for (const span of spans) span.open = open;
  });
  addEventListener("keydown", press);
  addEventListener("hashchange", openNamed);
  openNamed();
}

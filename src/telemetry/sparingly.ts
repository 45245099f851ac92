/** Rate-limits what recurs in the log: true when nothing of the kind was logged for `silenceMs`. */
export function sparingly(): (silenceMs: number) => boolean {
  let toldAt = Number.NEGATIVE_INFINITY;
  return (silenceMs) => {
    if (performance.now() - toldAt < silenceMs) return false;
    toldAt = performance.now();
    return true;
  };
}

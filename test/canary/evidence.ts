/** What must not be seen, planted where it comes from and looked for everywhere else. */

/** Of this run alone, so that nothing left over is taken for a find. */
const run = crypto.randomUUID().slice(0, 8);
const planted = new Map<string, string>();

/** A word that stands for a secret or a text: letters and digits alone, so that JSON, URLs and the analyzer leave it as it is. `of` names it in a find. */
export function canary(of: string): string {
  if (!/^[a-z]+$/.test(of)) throw new Error("a canary is named in small letters");
  const word = `cnry${of}${run}`;
  planted.set(of, word);
  return word;
}

/** The middle of a word's Base64, whatever stands before it: three ways to begin, without what the neighbours share. */
const base64Of = (word: string) =>
  [0, 1, 2].map((before) => {
    const encoded = Buffer.from("x".repeat(before) + word).toString("base64");
    return encoded.slice(before === 0 ? 0 : before + 1, 4 * Math.floor((word.length + before) / 3));
  });

const encodedForms = (word: string): string[] => [...base64Of(word), Buffer.from(word).toString("hex")];

export type Evidence = {
  /** Keeps what was said at a place. */
  readonly add: (place: string, text: string) => void;
  /** Every canary that was seen, once for each place, with what stands around it. */
  readonly finds: () => string[];
  /** Whether the places that start so hold a text: that there are no finds means nothing where nothing was said. */
  readonly holds: (place: string, text: string | RegExp) => boolean;
};

export function openEvidence(): Evidence {
  const said: { readonly place: string; readonly text: string }[] = [];
  return {
    add: (place, text) => void said.push({ place, text }),
    finds: () => {
      const found = new Map<string, string>();
      for (const { place, text } of said) {
        const small = text.toLowerCase();
        for (const [of, word] of planted) {
          const places = [small.indexOf(word), ...encodedForms(word).map((form) => text.indexOf(form))];
          const one = places.find((at) => at >= 0);
          if (one === undefined || found.has(`${place}: ${of}`)) continue;
          found.set(`${place}: ${of}`, text.slice(Math.max(0, one - 160), one + 60));
        }
      }
      return Array.from(found, ([where, around]) => `${where}: …${around}…`);
    },
    holds: (place, text) =>
      said.some(
        (s) => s.place.startsWith(place) && (typeof text === "string" ? s.text.includes(text) : text.test(s.text)),
      ),
  };
}

import { FormatRegistry } from "@sinclair/typebox";

/** Says whether `read` takes a text. What the libraries make of a text that they cannot take is an error that quotes it, so nothing of the kind goes past here. */
const reads =
  (read: (text: string) => boolean) =>
  (text: string): boolean => {
    try {
      return read(text);
    } catch {
      return false;
    }
  };
const visible = /^[\x21-\x7e]+$/;
/** The texts that have a form of their own, and how people are told of it. */
export const formats = {
  url: {
    wanted: "an http:// or https:// URL",
    check: reads((text) => {
      const { protocol, username, password, hash } = new URL(text);
      decodeURIComponent(username + password);
      return /^https?:$/.test(protocol) && hash === "" && visible.test(text);
    }),
  },
  header: { wanted: "visible ASCII characters", check: (text: string) => visible.test(text) },
  headers: {
    wanted: "k=v,k=v with each v percent-encoded",
    check: reads((text) =>
      text.split(",").every((pair) => /^([\w.-]+=[\x20-\x7e]*)?$/.test(decodeURIComponent(pair.trim()))),
    ),
  },
} as const;
for (const [name, { check }] of Object.entries(formats)) FormatRegistry.Set(name, check);

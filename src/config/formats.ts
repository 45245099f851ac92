import { FormatRegistry } from "@sinclair/typebox";

/** Whether `read` accepts a text. The libraries' errors quote the text, so none of them leaves this function. */
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
/** The special text formats, and how they are described to people. */
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

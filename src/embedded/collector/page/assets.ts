import { loadScript, loadStyle } from "./assets.macro.ts" with { type: "macro" };

export const style: string = loadStyle();
export const script: string = loadScript();

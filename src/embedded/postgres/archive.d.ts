/** The path under which the runtime serves an embedded file: on disk in development, inside the compiled binary else. */
declare module "*.tar.zst" {
  const path: string;
  export default path;
}

import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import fc from "fast-check";
import { bookshelves } from "../../src/db/schema.ts";
import { openFolder } from "../../src/library/folder.ts";
import { type ImportReport, importMarkdown } from "../../src/library/import.ts";
import { testDatabase } from "../support/postgres.ts";

const userId = "550e8400-e29b-41d4-a716-446655440000";
const testbed = await testDatabase();
const database = testbed.open();
const root = await mkdtemp(join(tmpdir(), "wordloom-import-"));
afterAll(async () => {
  await database.close();
  await rm(root, { recursive: true });
});

let folder: string;
let library: string;
let count = 0;
beforeEach(async () => {
  count += 1;
  library = `library ${count}`;
  folder = join(root, `notes-${count}`);
  await mkdir(folder);
});

const put = (files: Record<string, string | Uint8Array>) =>
  Promise.all(Object.entries(files).map(([path, content]) => Bun.write(join(folder, path), content)));
const remove = (path: string) => rm(join(folder, path));

const run = async (options: { db?: typeof database.db; signal?: AbortSignal; onProgress?: () => void } = {}) =>
  await importMarkdown(options.db ?? database.db, await openFolder(folder), {
    library,
    userId,
    committed: () => {},
    ...options,
  });

const failure = (work: Promise<unknown>) =>
  work.then(
    () => "",
    (error: unknown) => String(error),
  );

/** What of the report says that something was written. */
const written = ({
  books_created,
  books_changed,
  books_deleted,
  blocks_created,
  blocks_changed,
  blocks_deleted,
}: ImportReport) => ({
  books: [books_created, books_changed, books_deleted],
  blocks: [blocks_created, blocks_changed, blocks_deleted],
});

type Block = { id: string; content: string; version: string; type: string };
const blocksOf = async (path: string): Promise<Block[]> => [
  ...(await database.db.execute<Block>(sql`
    select k.id, k.content, k.version, k.type
      from blocks k join books b on b.id = k.book_id join libraries l on l.id = b.library_id
     where l.name = ${library} and b.source_path = ${path} and b.soft_deleted_at is null and k.soft_deleted_at is null
     order by k."order"`)),
];
const books = () =>
  database.db.execute<{ title: string; source_path: string; shelf: string; version: string }>(sql`
    select b.title, b.source_path, s.name as shelf, b.version
      from books b join bookshelves s on s.id = b.bookshelf_id join libraries l on l.id = b.library_id
     where l.name = ${library} and b.soft_deleted_at is null order by b.source_path`);

/** Everything that a write leaves behind, counted. */
async function traces(): Promise<unknown> {
  const [row] = await database.db.execute(sql`
    select (select count(*) from search_outbox_events) as search_events, (select count(*) from chronicle_outbox_events) as chronicle_outbox,
           (select count(*) from chronicle_events) as chronicle_events, (select max(xmin::text::bigint) from search_index) as last_write,
           (select sum(version) from blocks) as block_versions, (select sum(version) from books) as book_versions`);
  return row;
}

/** Rows whose entity and search_index row do not say the same: always none. */
const disagreements = () =>
  database.db.execute(sql`
    with entity as (
      select 'block' as type, id, version, soft_deleted_at is not null as deleted, '' as title, content as text from blocks
      union all select 'book', id, version, soft_deleted_at is not null, title, '' from books)
    select e.type, e.id from entity e left join search_index s on s.entity_type = e.type and s.entity_id = e.id
     where s.event_version is distinct from e.version or (s.deleted_at is not null) is distinct from e.deleted
        or (not e.deleted and (s.title, s.text) is distinct from (e.title, e.text))
        or not exists (select from search_outbox_events o where o.entity_type = e.type and o.entity_id = e.id and o.event_version = e.version
                          and o.op = case when e.deleted then 'delete' else 'upsert' end)`);

describe("a first import", () => {
  test("makes a book of every file, a bookshelf of every folder and a block of every top-level element", async () => {
    await put({
      "a.md": "# Ownership\n\nEvery *value* has an owner.\n",
      "guide/b.markdown": "just text\n",
      "guide/deep/c.md": "## `C` & D\n",
    });
    expect(written(await run())).toEqual({ books: [3, 0, 0], blocks: [4, 0, 0] });
    expect((await books()).map((b) => [b.source_path, b.title, b.shelf])).toEqual([
      ["a.md", "Ownership", `notes-${count}`],
      ["guide/b.markdown", "b", "guide"],
      ["guide/deep/c.md", "C & D", "guide/deep"],
    ]);
    expect((await blocksOf("a.md")).map((b) => [b.type, b.content])).toEqual([
      ["heading", "# Ownership"],
      ["text", "Every *value* has an owner."],
    ]);
    expect(await disagreements()).toBeEmpty();
  });

  test("leaves a book on the bookshelf where its owner has put it, and makes no other for it", async () => {
    await put({ "a.md": "text" });
    await run();
    await database.db.execute(sql`update bookshelves set name = name || ', renamed'`);
    const shelves = () => database.db.$count(bookshelves);
    const before = await shelves();
    await put({ "a.md": "other text" });
    expect(written(await run())).toEqual({ books: [0, 1, 0], blocks: [0, 1, 0] });
    expect(await shelves()).toBe(before);
    expect((await books()).map((b) => b.shelf)).toEqual([`notes-${count}, renamed`]);
  });

  test("keeps the order of the blocks beyond the rows of one statement", async () => {
    const paragraphs = Array.from({ length: 1201 }, (_, i) => `paragraph ${i}`);
    await put({ "long.md": paragraphs.join("\n\n") });
    await run();
    expect((await blocksOf("long.md")).map((b) => b.content)).toEqual(paragraphs);
    expect(await disagreements()).toBeEmpty();
  });

  test("cuts a title at 255 characters, not in the middle of one", async () => {
    await put({ "a.md": `# ${"🧵".repeat(300)}\n` });
    await run();
    expect((await books())[0]?.title).toBe("🧵".repeat(255));
  });

  test("keeps a title on one line, as the API does", async () => {
    await put({ "a\u001bb\nc.md": "text" });
    await run();
    expect((await books()).map((b) => b.title)).toEqual(["a b c"]);
  });

  test("passes over links, hidden folders and what is not Markdown", async () => {
    await put({ "a.md": "a", ".git/b.md": "b", "node_modules/c.md": "c", "d.txt": "d" });
    await Bun.write(join(root, `outside-${count}.md`), "secret");
    await symlink(join(root, `outside-${count}.md`), join(folder, "link.md"));
    await symlink(folder, join(folder, "circle"));
    expect((await run()).files).toBe(1);
    expect((await books()).map((b) => b.source_path)).toEqual(["a.md"]);
  });

  test("names what it cannot read, writes nothing of it and imports the rest", async () => {
    const far = `${`${"x".repeat(200)}/`.repeat(10)}far.md`;
    await put({
      "good.md": "good",
      "latin.md": new Uint8Array([0x63, 0x61, 0x66, 0xe9]),
      "nul.md": "a\0b",
      "deep.md": "> ".repeat(20_000),
      [far]: "far",
    });
    const report = await run();
    expect(report.failed.map((f) => f.path).sort()).toEqual(["deep.md", "latin.md", "nul.md", far].sort());
    expect(report.failed.find((f) => f.path === far)?.reason).toContain("shorten it");
    expect(report.failed.find((f) => f.path === "latin.md")?.reason).toContain("not UTF-8");
    expect((await books()).map((b) => b.source_path)).toEqual(["good.md"]);
  });

  test("refuses a folder without Markdown, a file and what is not there", async () => {
    await put({ "a.txt": "a" });
    expect(await failure(run())).toContain("contains no Markdown");
    expect(await failure(openFolder(join(folder, "a.txt")))).toContain("is not a folder");
    expect(await failure(openFolder(join(folder, "nowhere")))).toContain("does not exist");
  });
});

describe("an import of what was imported before", () => {
  test("writes nothing at all when nothing changed", async () => {
    await put({ "a.md": "# A\n\none\n\ntwo\n", "b/c.md": "# C\n" });
    await run();
    const before = await traces();
    const report = await run();
    expect(written(report)).toEqual({ books: [0, 0, 0], blocks: [0, 0, 0] });
    expect(report.unchanged).toBe(2);
    expect(await traces()).toEqual(before);
  });

  test("touches the changed block alone, and the block keeps its identity", async () => {
    await put({ "a.md": "# A\n\none\n\ntwo\n\nthree\n", "b.md": "b" });
    await run();
    const before = await blocksOf("a.md");
    await put({ "a.md": "# A\n\none\n\nzwei\n\nthree\n" });
    const report = await run();
    expect(written(report)).toEqual({ books: [0, 1, 0], blocks: [0, 1, 0] });
    expect(report.unchanged).toBe(1);
    expect(await blocksOf("a.md")).toEqual(
      before.map((b) => (b.content === "two" ? { ...b, content: "zwei", version: "2" } : b)),
    );
    expect(await disagreements()).toBeEmpty();
  });

  test("puts new blocks between old ones without touching those", async () => {
    await put({ "a.md": "one\n\ntwo\n" });
    await run();
    const before = await blocksOf("a.md");
    await put({ "a.md": "zero\n\none\n\none and a half\n\ntwo\n\nthree\n" });
    expect(written(await run()).blocks).toEqual([3, 0, 0]);
    const after = await blocksOf("a.md");
    expect(after.map((b) => b.content)).toEqual(["zero", "one", "one and a half", "two", "three"]);
    expect([after[1], after[3]]).toEqual([...before]);
  });

  test("renames the book of a file whose first heading changed", async () => {
    await put({ "a.md": "# A\n" });
    await run();
    await put({ "a.md": "# B\n" });
    expect(written(await run())).toEqual({ books: [0, 1, 0], blocks: [0, 1, 0] });
    expect(await books()).toMatchObject([{ title: "B", version: "2" }]);
    expect(await disagreements()).toBeEmpty();
  });

  test("deletes the book of a vanished file with its blocks, and leaves alone what no import made", async () => {
    await put({ "a.md": "a", "b.md": "b1\n\nb2\n" });
    await run();
    await database.db.execute(sql`
      insert into books (id, bookshelf_id, library_id, title)
      select ${Bun.randomUUIDv7()}::uuid, bookshelf_id, library_id, 'my own' from books where source_path = 'a.md'
         and library_id = (select id from libraries where name = ${library})`);
    await remove("b.md");
    expect(written(await run())).toEqual({ books: [0, 0, 1], blocks: [0, 0, 2] });
    expect((await books()).map((b) => b.title).sort()).toEqual(["a", "my own"]);
    await database.db.execute(sql`delete from books where title = 'my own'`);
    expect(await disagreements()).toBeEmpty();
  });

  test("keeps the book of a file that can no longer be read", async () => {
    await put({ "a.md": "a", "b.md": "b" });
    await run();
    await put({ "b.md": "b\0" });
    expect(written(await run())).toEqual({ books: [0, 0, 0], blocks: [0, 0, 0] });
    expect(await books()).toHaveLength(2);
  });

  test("refuses a folder that has no file in common with the library, and writes nothing", async () => {
    await put({ "a.md": "a" });
    await run();
    const before = await traces();
    await remove("a.md");
    await put({ "b.md": "b" });
    expect(await failure(run())).toContain("was imported from different files");
    expect(await traces()).toEqual(before);
  });

  test("finds room for a block where none is left between its neighbours", async () => {
    await put({ "a.md": "one\n\ntwo\n" });
    await run();
    await database.db.execute(sql`
      update blocks set "order" = 1.000000000000000001 where content = 'two'
         and book_id in (select b.id from books b join libraries l on l.id = b.library_id where l.name = ${library})`);
    await put({ "a.md": "one\n\nbetween\n\ntwo\n" });
    expect(written(await run()).blocks).toEqual([1, 0, 0]);
    expect((await blocksOf("a.md")).map((b) => [b.content, b.version])).toEqual([
      ["one", "1"],
      ["between", "1"],
      ["two", "1"],
    ]);
  });

  test("ends at the file's blocks from whatever was there, and never touches more than differs", async () => {
    await put({ "keep.md": "keep" });
    await run();
    const document = fc.array(fc.constantFrom("a", "b", "c", "d", "# e", "- f"), { maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(document, async (paragraphs) => {
        await put({ "a.md": paragraphs.join("\n\n<!-- -->\n\n") });
        const wanted = paragraphs.flatMap((p, i) => (i === 0 ? [p] : ["<!-- -->", p]));
        const before = (await blocksOf("a.md")).map((b) => b.content);
        const { blocks } = written(await run());
        expect((await blocksOf("a.md")).map((b) => b.content)).toEqual(wanted);
        const [created = 0, changed = 0, deleted = 0] = blocks;
        expect(before.length + created - deleted).toBe(wanted.length);
        expect(created + changed).toBeLessThanOrEqual(wanted.length);
        if (before.join() === wanted.join()) expect(blocks).toEqual([0, 0, 0]);
      }),
      { numRuns: 40 },
    );
    expect(await disagreements()).toBeEmpty();
  });
});

describe("an import that does not have the library for itself", () => {
  test("stops after the file in hand when told to, leaves whole books, and goes on when run again", async () => {
    await put(Object.fromEntries(Array.from({ length: 6 }, (_, i) => [`${i}.md`, `# ${i}\n\ntext ${i}\n`])));
    const stop = new AbortController();
    let seen = 0;
    const onProgress = () => {
      seen += 1;
      if (seen === 3) stop.abort();
    };
    const report = await run({ signal: stop.signal, onProgress });
    expect(report.interrupted).toBe(true);
    expect(written(report)).toEqual({ books: [2, 0, 0], blocks: [4, 0, 0] });
    expect(written(await run())).toEqual({ books: [4, 0, 0], blocks: [8, 0, 0] });
  });

  test("says so in one line when the library is deleted under it", async () => {
    await put({ "a.md": "one", "b/b.md": "two" });
    const source = await openFolder(folder);
    const read = async (file: string) => {
      if (file !== "a.md")
        await database.db.execute(sql`update libraries set soft_deleted_at = now() where name = ${library}`);
      return await source.read(file);
    };
    const options = { library, userId, committed: () => undefined };
    expect(await failure(importMarkdown(database.db, { ...source, read }, options))).toMatch(
      /^CommandError: .*\(There is no such library\); run the import again$/,
    );
  });

  test("shares the work with another import of the same folder: nothing is there twice", async () => {
    await put(Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`${i % 3}/${i}.md`, `# ${i}\n\ntext ${i}\n`])));
    const pools = [testbed.open(), testbed.open(), testbed.open()];
    const reports = await Promise.all(pools.map((pool) => run({ db: pool.db })));
    await Promise.all(pools.map((pool) => pool.close()));
    expect(reports.reduce((sum, r) => sum + r.books_created, 0)).toBe(20);
    expect(reports.reduce((sum, r) => sum + r.blocks_created, 0)).toBe(40);
    expect(reports.reduce((sum, r) => sum + r.unchanged, 0)).toBe(40);
    const [made] = await database.db.execute(
      sql`select (select count(*)::int from libraries where name = ${library}) as libraries,
                 (select count(*)::int from bookshelves s join libraries l on l.id = s.library_id where l.name = ${library}) as shelves`,
    );
    expect(made).toEqual({ libraries: 1, shelves: 3 });
    expect(await disagreements()).toBeEmpty();
  });
});

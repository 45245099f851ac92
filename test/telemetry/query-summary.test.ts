import { expect, test } from "bun:test";
import { summarizeQuery } from "../../src/telemetry/query-summary.ts";

test.each([
  ['insert into "tags" ("id", "name") values ($1, $2) returning "created_at"', "INSERT tags"],
  ['select "id", "name" from "tags" where ("tags"."id" = $1 and "tags"."deleted_at" is null)', "SELECT tags"],
  ['update "books" set "title" = $1, "version" = "books"."version" + 1 where "id" = $2 returning "id"', "UPDATE books"],
  ["delete from chronicle_entries where id = $1", "DELETE chronicle_entries"],
  ["select 1", "SELECT"],
  ["begin", "BEGIN"],
  ["commit", "COMMIT"],
  ["select pg_notify($1, '')", "SELECT pg_notify"],
  ["select id from books where id = $1 limit $2 for no key update", "SELECT books"],
  ["insert into s (a) values ($1) on conflict (a) do update set a = excluded.a", "INSERT s"],
  [
    "select a.x from a join b on a.id = b.id left join c on c.id = b.id join lateral (select 1) d on true",
    "SELECT a b c",
  ],
  [
    "select n from jsonb_array_elements($1::jsonb) with ordinality as c(c, n) join search_index s on true",
    "SELECT search_index",
  ],
  ["select extract(epoch from created_at) from t where a is distinct from b", "SELECT t"],
  [
    "with recursive below as (select id from tags union all select t.id from tags t join below b on true) select id from below",
    "SELECT tags",
  ],
  [
    "with change as materialized (select c from jsonb_array_elements($1) as r(c)), indexed as (insert into search_index as s (a) select 1 from change) insert into chronicle_events (id) select 1 from change",
    "INSERT search_index INSERT chronicle_events",
  ],
  ["with gone as (delete from a where id = $1 returning *) insert into b select * from gone", "DELETE a INSERT b"],
  ["select 'insert into secrets' as x from t -- update nothing\n/* delete from u */", "SELECT t"],
  ["select (select count(*) from a), (select count(*) from b)", "SELECT a SELECT b"],
])("%s", (text, summary) => {
  expect(summarizeQuery(text)).toBe(summary);
});

test("a summary is never longer than 255 characters, and how many there are costs no memory", () => {
  const joins = Array.from({ length: 100 }, (_, i) => `join table_number_${i} on true`).join(" ");
  expect(summarizeQuery(`select 1 from a ${joins}`).length).toBe(255);
  for (let i = 0; i < 3000; i += 1) expect(summarizeQuery(`select ${i} from t`)).toBe("SELECT t");
});

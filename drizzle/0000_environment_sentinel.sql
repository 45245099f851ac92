-- One row that says which environment this database is: the guard compares it with WORDLOOM_ENV before anything else is read.
-- It may be there before any migration ran: docker/postgres/init.sql runs this file and writes the row.
create table if not exists environment_sentinel (
  id integer primary key check (id = 1),
  project text not null,
  env text not null check (env in ('dev', 'test', 'sandbox', 'prod')),
  created_at timestamptz not null default current_timestamp
);

-- What can be found, as Postgres holds it: the source of truth that the Elasticsearch documents are built from, and that every hit is checked against.
-- A deleted entity stays as a tombstone (deleted_at, the version of the delete, no text) until long after every retry horizon,
-- so that an upsert event which arrives late finds the tombstone and deletes.
create table search_index (
  id uuid primary key default gen_random_uuid(),
  entity_type varchar(50) not null check (entity_type in ('library', 'bookshelf', 'book', 'block', 'tag')),
  entity_id uuid not null,
  library_id uuid,
  book_id uuid,
  title varchar(255) not null default '',
  text text not null,
  snippet text,
  rank_score double precision not null default 0,
  event_version bigint not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  constraint uq_search_index_entity unique (entity_type, entity_id)
);
create index idx_search_index_library_type on search_index (library_id, entity_type);
create index idx_search_index_tombstones on search_index (deleted_at) where deleted_at is not null;

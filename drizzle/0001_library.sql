-- The domain. Ids are UUIDv7 made by the writer. `version` counts the writes of one entity and is what Elasticsearch compares
-- (version_type external); it never goes down, also not when a row is deleted or restored.

create table libraries (
  id uuid primary key,
  user_id uuid not null,
  basement_bookshelf_id uuid,
  name varchar(255) not null,
  description varchar(500),
  cover_media_id uuid,
  theme_color varchar(16),
  pinned boolean not null default false,
  pinned_order integer,
  archived_at timestamptz,
  last_activity_at timestamptz not null default now(),
  views_count bigint not null default 0,
  last_viewed_at timestamptz,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  soft_deleted_at timestamptz
);
-- A deleted library frees its name.
create unique index uq_libraries_user_name on libraries (user_id, name) where soft_deleted_at is null;

create table bookshelves (
  id uuid primary key,
  library_id uuid not null references libraries (id),
  name varchar(255) not null,
  description varchar(1000),
  is_basement boolean not null default false,
  is_pinned boolean not null default false,
  pinned_at timestamptz,
  is_favorite boolean not null default false,
  status varchar(50) not null default 'active' check (status in ('active', 'archived', 'deleted')),
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  soft_deleted_at timestamptz
);
create unique index uq_library_bookshelf_name on bookshelves (library_id, name) where soft_deleted_at is null;

create table books (
  id uuid primary key,
  bookshelf_id uuid not null references bookshelves (id),
  library_id uuid not null references libraries (id),
  title varchar(255) not null,
  summary text,
  cover_icon varchar(64),
  cover_media_id uuid,
  is_pinned boolean not null default false,
  due_at timestamptz,
  status varchar(50) not null default 'draft' check (status in ('draft', 'published', 'archived', 'deleted')),
  maturity varchar(16) not null default 'seed' check (maturity in ('seed', 'growing', 'stable', 'legacy')),
  maturity_score integer not null default 0,
  legacy_flag boolean not null default false,
  manual_maturity_override boolean not null default false,
  manual_maturity_reason text,
  last_visited_at timestamptz,
  visit_count_90d integer not null default 0,
  previous_bookshelf_id uuid references bookshelves (id) on delete set null,
  moved_to_basement_at timestamptz,
  -- Where `wordloom import` read this book, relative to the imported folder: a second import finds it again by this path.
  source_path text,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  soft_deleted_at timestamptz
);
create index ix_books_bookshelf_id on books (bookshelf_id);
create index ix_books_library_id on books (library_id);
create unique index uq_books_library_source_path on books (library_id, source_path) where source_path is not null and soft_deleted_at is null;

create table blocks (
  id uuid primary key,
  book_id uuid not null references books (id),
  type varchar(32) not null check (type in ('text', 'heading', 'code', 'image', 'quote', 'list', 'todo_list', 'table', 'divider')),
  content text not null,
  -- Fractional, so that a block can be put between two others without touching them.
  "order" numeric(36, 18) not null,
  heading_level integer check (heading_level between 1 and 6),
  meta text,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  soft_deleted_at timestamptz
);
create index ix_blocks_book_id_order on blocks (book_id, "order");

create table tags (
  id uuid primary key,
  user_id uuid not null,
  name varchar(50) not null,
  color varchar(9) not null default '#6366F1',
  icon_emoji varchar(50),
  description varchar(500),
  parent_tag_id uuid references tags (id) on delete set null,
  level integer not null default 0,
  usage_count integer not null default 0,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);
-- A deleted tag frees its name.
create unique index uq_tags_user_name on tags (user_id, name) where deleted_at is null;
create index idx_tags_parent_tag_id on tags (parent_tag_id);

create type entitytype as enum ('library', 'bookshelf', 'book', 'block');
create table tag_associations (
  id uuid primary key,
  tag_id uuid not null references tags (id) on delete cascade,
  entity_type entitytype not null,
  entity_id uuid not null,
  created_at timestamptz not null default now(),
  constraint uq_tag_associations_tag_entity unique (tag_id, entity_type, entity_id)
);
create index ix_tag_associations_entity on tag_associations (entity_type, entity_id);

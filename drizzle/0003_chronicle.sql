-- The history of every change (chronicle_events, append-only) and its readable projection (chronicle_entries, keyed by the event's id, so that
-- applying an event twice changes nothing). No foreign keys: the history of a thing outlives the thing.
create table chronicle_events (
  id uuid primary key,
  event_type varchar(64) not null,
  entity_type varchar(50) not null,
  entity_id uuid not null,
  library_id uuid,
  book_id uuid,
  block_id uuid,
  actor_id uuid,
  payload jsonb not null default '{}',
  occurred_at timestamptz not null default now(),
  created_at timestamptz not null default now(),
  schema_version integer not null default 1,
  provenance varchar(32) not null default 'live',
  source varchar(64) not null default 'unknown',
  actor_kind varchar(32) not null default 'unknown',
  correlation_id varchar(128)
);
create index ix_chronicle_events_book_time on chronicle_events (book_id, occurred_at desc);
create index ix_chronicle_events_created on chronicle_events (created_at desc);

create table chronicle_entries (
  id uuid primary key,
  event_type varchar(64) not null,
  entity_type varchar(50) not null,
  entity_id uuid not null,
  library_id uuid,
  book_id uuid,
  block_id uuid,
  actor_id uuid,
  occurred_at timestamptz not null,
  created_at timestamptz not null,
  payload jsonb not null default '{}',
  summary text not null,
  schema_version integer not null,
  provenance varchar(32) not null,
  source varchar(64) not null,
  actor_kind varchar(32) not null,
  correlation_id varchar(128),
  projection_version integer not null,
  updated_at timestamptz not null default now()
);
create index ix_chronicle_entries_book_time on chronicle_entries (book_id, occurred_at desc);

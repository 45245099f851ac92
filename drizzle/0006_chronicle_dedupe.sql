-- Which window of each block's block_updated events has its chronicle event already: bucket = floor(epoch / window_seconds), by the server's clock.
create table chronicle_event_dedupe_state (
  event_type varchar(64) not null,
  book_id uuid not null,
  block_id uuid not null,
  actor_id uuid not null,
  window_seconds integer not null check (window_seconds > 0),
  last_bucket bigint not null,
  updated_at timestamptz not null default now(),
  primary key (event_type, book_id, block_id, actor_id, window_seconds)
);
create index ix_chronicle_event_dedupe_state_updated on chronicle_event_dedupe_state (updated_at);

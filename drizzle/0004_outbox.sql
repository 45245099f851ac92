-- The queues between a write and its projections. An event is identity and version, never state.
--
-- id                     insertion order (not commit order); a bigint, so that no process's clock has a say in the order
-- created_at             when it was appended, not when its transaction began: it rises with the id, so the oldest event is the one with the lowest id
-- claim_batch_id         the fence: fresh for every claim, named by every settle
-- attempts               real sends of this event, whatever became of them
-- counted_attempts       failures that count towards OUTBOX_MAX_ATTEMPTS; an outage of the target does not
-- result                 what the last send did to the target, once done: applied, noop, superseded by a newer version
--
-- Partitioned by status, so that what is claimed, counted and watched stays small whatever the history. A row changes partition by DELETE + INSERT in one
-- statement, never by UPDATE: that makes a concurrent claim under SKIP LOCKED fail with SQLSTATE 40001.

create sequence search_outbox_events_id_seq as bigint;

create table search_outbox_events (
  id bigint not null default nextval('search_outbox_events_id_seq'),
  entity_type varchar(50) not null,
  entity_id uuid not null,
  op varchar(20) not null check (op in ('upsert', 'delete')),
  event_version bigint not null default 0,
  created_at timestamptz not null default clock_timestamp(),
  status varchar(20) not null default 'pending',
  owner varchar(120),
  claim_batch_id uuid,
  lease_until timestamptz,
  attempts integer not null default 0,
  counted_attempts integer not null default 0,
  next_retry_at timestamptz,
  updated_at timestamptz not null default current_timestamp,
  processed_at timestamptz,
  processing_started_at timestamptz,
  result varchar(20) check (result in ('applied', 'noop', 'superseded')),
  error_reason varchar(80),
  error text,
  traceparent varchar(55),
  tracestate varchar(512),
  reclaim_count integer not null default 0,
  last_reclaimed_at timestamptz,
  last_reclaimed_by varchar(120),
  last_reclaimed_from varchar(120),
  last_reclaimed_reason varchar(80),
  replay_count integer not null default 0,
  last_replayed_at timestamptz,
  last_replayed_by varchar(120),
  last_replayed_reason text,
  primary key (id, status)
) partition by list (status);
alter sequence search_outbox_events_id_seq owned by search_outbox_events.id;

create table search_outbox_events_live partition of search_outbox_events for values in ('pending', 'processing', 'failed')
  with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 1);
create table search_outbox_events_done partition of search_outbox_events for values in ('done')
  with (autovacuum_vacuum_insert_scale_factor = 0.05);

-- The two claim lanes: fresh rows in the order of their ids, retries by the time they are due.
create index idx_search_outbox_fresh on search_outbox_events_live (id) where status = 'pending' and next_retry_at is null;
create index idx_search_outbox_claim on search_outbox_events_live (next_retry_at, id) where status = 'pending' and next_retry_at is not null;
create index idx_search_outbox_processing on search_outbox_events_live (lease_until) where status = 'processing';
create index idx_search_outbox_error_reason on search_outbox_events_live (error_reason) where status = 'failed';
create index idx_search_outbox_processed on search_outbox_events_done (processed_at);

create sequence chronicle_outbox_events_id_seq as bigint;

create table chronicle_outbox_events (
  id bigint not null default nextval('chronicle_outbox_events_id_seq'),
  entity_type varchar(50) not null,
  entity_id uuid not null,
  op varchar(20) not null check (op in ('upsert', 'delete')),
  event_version bigint not null default 0,
  created_at timestamptz not null default clock_timestamp(),
  status varchar(20) not null default 'pending',
  owner varchar(120),
  claim_batch_id uuid,
  lease_until timestamptz,
  attempts integer not null default 0,
  counted_attempts integer not null default 0,
  next_retry_at timestamptz,
  updated_at timestamptz not null default current_timestamp,
  processed_at timestamptz,
  processing_started_at timestamptz,
  result varchar(20) check (result in ('applied', 'noop', 'superseded')),
  error_reason varchar(80),
  error text,
  traceparent varchar(55),
  tracestate varchar(512),
  reclaim_count integer not null default 0,
  last_reclaimed_at timestamptz,
  last_reclaimed_by varchar(120),
  last_reclaimed_from varchar(120),
  last_reclaimed_reason varchar(80),
  replay_count integer not null default 0,
  last_replayed_at timestamptz,
  last_replayed_by varchar(120),
  last_replayed_reason text,
  primary key (id, status)
) partition by list (status);
alter sequence chronicle_outbox_events_id_seq owned by chronicle_outbox_events.id;

create table chronicle_outbox_events_live partition of chronicle_outbox_events for values in ('pending', 'processing', 'failed')
  with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 1);
create table chronicle_outbox_events_done partition of chronicle_outbox_events for values in ('done')
  with (autovacuum_vacuum_insert_scale_factor = 0.05);

-- The two claim lanes: fresh rows in the order of their ids, retries by the time they are due.
create index idx_chronicle_outbox_fresh on chronicle_outbox_events_live (id) where status = 'pending' and next_retry_at is null;
create index idx_chronicle_outbox_claim on chronicle_outbox_events_live (next_retry_at, id) where status = 'pending' and next_retry_at is not null;
create index idx_chronicle_outbox_processing on chronicle_outbox_events_live (lease_until) where status = 'processing';
create index idx_chronicle_outbox_error_reason on chronicle_outbox_events_live (error_reason) where status = 'failed';
create index idx_chronicle_outbox_processed on chronicle_outbox_events_done (processed_at);

-- Every replay of failed events by an operator: who, when, why, how many. Append-only; the rows themselves keep only their last replay.
create table outbox_replays (
  id bigint generated always as identity primary key,
  projection varchar(100) not null,
  replayed_at timestamptz not null default now(),
  replayed_by varchar(120) not null,
  reason text not null,
  event_id bigint not null,
  error_reason varchar(80),
  error text,
  attempts integer not null
);

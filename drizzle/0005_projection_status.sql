-- The last rebuild of each projection, as the gauges projection_rebuild_* show it.
create table projection_status (
  projection_name varchar(100) primary key,
  last_rebuild_started_at timestamptz,
  last_rebuild_finished_at timestamptz,
  last_rebuild_duration_seconds double precision,
  last_rebuild_success boolean,
  last_rebuild_error text,
  updated_at timestamptz not null default timezone('utc', now())
);

-- A rebuild puts into the queue what was written since a transaction, right after the new index has taken over. Written down just before, and cleared with the events in one
-- statement: of a rebuild that was killed in between, a worker does the rest.
alter table projection_status add column take_over_since xid8;

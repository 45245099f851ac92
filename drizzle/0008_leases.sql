-- A claim changes no indexed column, so that Postgres writes the new version of a row onto the page of the old one and leaves the indexes alone (a HOT update): with the
-- status in the index, a claim cost twice as much (measured: 8 us a row in place of 17). Hence no index says what is under lease; this table does, one row a batch.
--
-- ids                   the rows that the batch took: where reclaim and the gauges look. What holds for a row is what the row says
-- fillfactor            a claim takes all rows of a page at once; their new versions are half as long again
-- next_retry_at         of a failed row 'infinity': due never. So the fresh lane (null) and the lane of retries hold nothing but what is unfinished
create table outbox_leases (
  claim_batch_id uuid primary key,
  projection varchar(100) not null,
  ids bigint[] not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 1);
-- A batch's ids are too long for a page's row, and compressing them takes longer than writing them.
alter table outbox_leases alter column ids set storage external;

insert into outbox_leases (claim_batch_id, projection, ids)
select claim_batch_id, 'search_index_to_elastic', array_agg(id) from search_outbox_events_live where status = 'processing' and claim_batch_id is not null group by claim_batch_id
union all
select claim_batch_id, 'chronicle_events_to_entries', array_agg(id) from chronicle_outbox_events_live where status = 'processing' and claim_batch_id is not null group by claim_batch_id;

update search_outbox_events_live set next_retry_at = 'infinity' where status = 'failed';
alter table search_outbox_events_live set (fillfactor = 40);
drop index idx_search_outbox_claim;
create index idx_search_outbox_claim on search_outbox_events_live (next_retry_at, (id + 0));

update chronicle_outbox_events_live set next_retry_at = 'infinity' where status = 'failed';
alter table chronicle_outbox_events_live set (fillfactor = 40);
drop index idx_chronicle_outbox_claim;
create index idx_chronicle_outbox_claim on chronicle_outbox_events_live (next_retry_at, (id + 0));

-- The two databases of development, each with the sentinel that keeps a command of one environment out of the other.
-- The table is the first migration's own file; `wordloom migrate` finds it there and applies the rest.

create database wordloom_dev;
create database wordloom_test;

\connect wordloom_dev
\i /wordloom/environment_sentinel.sql
insert into environment_sentinel (id, project, env) values (1, 'wordloom', 'dev');

\connect wordloom_test
\i /wordloom/environment_sentinel.sql
insert into environment_sentinel (id, project, env) values (1, 'wordloom', 'test');

-- Run as farebox_migrate (or a superuser) after the first start and after each upgrade:
--     psql -d farebox -v ON_ERROR_STOP=1 -f deploy/grants.sql
-- The writer may add postings and never change or remove one. The reader sees no secret.

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO farebox_write;
-- UPDATE is for the first tenant, whose id the sequence must skip.
GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO farebox_write;
REVOKE UPDATE, DELETE, TRUNCATE ON postings FROM farebox_write;
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON alembic_version FROM farebox_write;

GRANT SELECT ON ALL TABLES IN SCHEMA public TO farebox_read;
REVOKE ALL ON api_keys, link_secrets, webhook_endpoints, name_secrets, erased_names, people, sessions FROM farebox_read;
